//! `strandlog bench`

mod support;

use support::{place, str, strandlog};

#[test]
fn every_workload_runs_and_leaves_nothing() {
    for workload in ["append", "batch", "churn", "state", "window"] {
        let (dir, _) = place();
        let dir = str(dir.path());
        let small = ["--seconds", "0.6", "--capacity", "32M", "--replicas", "60", "--threads", "3", "--batch", "20"];
        let ran = strandlog(&[&["bench", dir, "--json", "--workload", workload][..], &small].concat());
        assert_eq!(ran.code, 0, "{workload}: {ran:?}");
        let json = ran.json();
        assert!(json["items"].as_u64().unwrap() > 0 && json["frames"].as_u64().unwrap() > 0, "{workload}: {json}");
        let sizes = json["frame_sizes"].as_array().unwrap();
        let frames: u64 = sizes.iter().map(|s| s["frames"].as_u64().unwrap()).sum();
        assert!(frames >= json["frames"].as_u64().unwrap(), "{workload}: {json}");
        assert!(json["commit_us"]["p50"].as_f64().unwrap() <= json["commit_us"]["max"].as_f64().unwrap(), "{json}");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "{workload}");
    }
}

#[test]
fn a_report_is_one_page_that_needs_nothing_else() {
    let (dir, path) = place();
    let html = path.with_extension("html");
    let args = ["--seconds", "0.6", "--capacity", "32M", "--replicas", "50", "--html", str(&html)];
    let ran = strandlog(&[&["bench", str(dir.path())][..], &args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("p99") && ran.out.contains("report: "), "{ran:?}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert_eq!(page.matches("<svg").count(), 6, "six plots");
    assert!(!page.contains("not drawn") && page.ends_with("</html>\n"));
    for outside in ["<script", "<link", "src=", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn nonsense_is_refused() {
    let (dir, path) = place();
    for args in [["--threads", "0"], ["--entry-size", "1G"], ["--seconds", "0"], ["--workload", "sleep"]] {
        let ran = strandlog(&[&["bench", str(dir.path())][..], &args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
    assert!(strandlog(&["bench", str(&path)]).err.contains("is no directory"));
    let ran = strandlog(&["bench", str(dir.path()), "--capacity", "1K"]);
    assert!(ran.code == 2 && ran.err.contains("capacity"), "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
