//! Records: each kind round-trips, and each bound holds from both sides.

use super::super::piece::Extent;
use super::*;
use smallvec::smallvec;

fn desc() -> PieceDesc {
    PieceDesc {
        id: 4,
        first: 3,
        count: 2,
        slots: 2,
        bare: false,
        bytes: 200,
        crc: 9,
        terms: smallvec![(2, 7)],
        extents: smallvec![Extent { block: 1, blocks: 1 }],
    }
}

#[test]
fn every_kind_round_trips() {
    let core = Core {
        incarnation: 1,
        first: 10,
        prev_term: 2,
        last: 9,
        fresh: true,
        state_suspect: true,
        damaged: vec![(1, 2)],
    };
    let mut t = Vec::new();
    encode_core(&mut t, 1, 0, &core);
    encode_run(&mut t, RunKind::Append, 2, 1, (5, 6), [0, 300].into_iter());
    encode_run(&mut t, RunKind::Carried, 2, 2, (5, 6), [0, 300].into_iter());
    encode_pieces(&mut t, RunKind::Append, 3, 3, &[desc()]);
    encode_pieces(&mut t, RunKind::Carried, 3, 4, &[desc(), desc()]);
    encode_put(&mut t, u64::MAX, 5, b"k", b"v");
    encode_put_out(&mut t, 4, 6, b"k", &desc());
    encode_delete(&mut t, 4, 7, b"");
    encode_truncate(&mut t, 4, 8, 77, Some(8));
    encode_reset(&mut t, 4, 9, 78, 9);
    encode_remove(&mut t, 4, 65535);
    encode_cut(&mut t, 5, 11, 300);
    encode_kept_out(&mut t, 4, 12, b"k", &desc());
    encode_truncate(&mut t, 4, 13, 77, None);
    let got: Vec<_> = Records::new(Reader::new(&t), 10).collect::<Result<_, _>>().unwrap();
    assert_eq!(got.len(), 14);
    assert_eq!(got[0].body, Body::Core(core));
    let Body::Append { first: 5, term: 6, lens } = got[1].body else { panic!("{:?}", got[1]) };
    assert_eq!(lens.iter().collect::<Vec<_>>(), [0, 300]);
    assert_eq!(got[4].body, Body::Settled(smallvec![desc(), desc()]));
    assert_eq!(got[5].body, Body::Put { key: b"k", value: b"v" });
    assert_eq!(got[6].body, Body::PutOut { key: b"k", piece: desc() });
    assert_eq!(got[8].body, Body::Truncate { first: 77, prev_term: Some(8) });
    assert_eq!(got[13].body, Body::Truncate { first: 77, prev_term: None });
    assert_eq!(got[9].body, Body::Reset { first: 78, prev_term: 9 });
    assert_eq!((got[10].replica, got[10].seq), (4, 65535));
    assert_eq!(got[11], Record { replica: 5, seq: 11, body: Body::Cut { first: 300 } });
    assert_eq!(got[12], Record { replica: 4, seq: 12, body: Body::KeptOut { key: b"k", piece: desc() } });
    // One replica's records are found among the others', and of those the lengths that move the payload on.
    for wanted in [1, 2, 3, 4, 5, u64::MAX, 9] {
        let mut records = Records::new(Reader::new(&t), 10);
        let steps: Vec<_> =
            std::iter::from_fn(|| records.next_of(|id| id == wanted)).collect::<Result<_, _>>().unwrap();
        let expected: Vec<_> = got
            .iter()
            .map(|record| match &record.body {
                _ if record.replica == wanted => Step::Record(record.clone()),
                Body::Append { lens, .. } | Body::Carried { lens, .. } => Step::Passed(Some(*lens)),
                _ => Step::Passed(None),
            })
            .collect();
        assert_eq!(steps, expected, "{wanted}");
    }
    for cut in 0..t.len() {
        let _ = Records::new(Reader::new(&t[..cut]), 10).count();
        let mut records = Records::new(Reader::new(&t[..cut]), 10);
        let passed = std::iter::from_fn(|| records.next_of(|_| false)).collect::<Vec<_>>();
        assert!(passed.iter().rev().skip(1).all(Result::is_ok), "a record that is cut short is the last");
    }
}

/// What is budgeted is the most that is written.
#[test]
fn a_core_is_as_long_as_the_longest_and_no_longer() {
    let longest = |ranges: usize| {
        let mut out = Vec::new();
        let core = Core {
            incarnation: u64::MAX,
            first: u64::MAX,
            prev_term: u64::MAX,
            last: u64::MAX,
            fresh: true,
            state_suspect: true,
            damaged: vec![(u64::MAX, u64::MAX); ranges],
        };
        encode_core(&mut out, u64::MAX, u16::MAX, &core);
        out.len() as u64
    };
    assert_eq!(longest(0), CORE_BYTES);
    assert_eq!(longest(1), CORE_BYTES + DAMAGE_RANGE_BYTES);
    assert_eq!(longest(MAX_DAMAGE_RANGES), MOST_CORE_BYTES);
}

#[test]
fn an_unknown_codec_is_named_and_an_unknown_kind_refused() {
    let next = |t: &[u8]| Records::new(Reader::new(t), 10).next().map(|r| r.map(|_| ()));
    assert_eq!(next(&[0x82, 3]), Some(Err(RecordError::Codec(3))));
    assert_eq!(next(&[99, 0, 0, 0]), Some(Err(RecordError::Malformed)));
    assert_eq!(next(&[]), None);
}

/// Each field at its bounds, and one beyond.
#[test]
fn every_bound_of_a_record_holds_from_both_sides() {
    let whole = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut t = Vec::new();
        encode(&mut t);
        let mut records = Records::new(Reader::new(&t), 10);
        matches!(records.next(), Some(Ok(_))) && records.next().is_none()
    };
    let run = |first: u64, n: usize| {
        let kinds = [RunKind::Append, RunKind::Carried];
        kinds.map(|k| whole(&|t| encode_run(t, k, 1, 0, (first, 1), vec![7; n].into_iter())))
    };
    assert_eq!([run(1, 1), run(u64::MAX, 1), run(u64::MAX - 2, 3)], [[true; 2]; 3]);
    assert_eq!([run(0, 1), run(1, 0), run(u64::MAX, 2), run(u64::MAX - 1, 3)], [[false; 2]; 4]);
    let core = |first, last, ranges: usize| {
        let core = Core {
            incarnation: 1,
            first,
            prev_term: 0,
            last,
            fresh: false,
            state_suspect: false,
            damaged: vec![(first, last); ranges],
        };
        whole(&|t| encode_core(t, 1, 0, &core))
    };
    assert!(core(1, 0, 0) && core(5, 4, 0) && core(5, 5, MAX_DAMAGE_RANGES) && core(u64::MAX, u64::MAX, 1));
    assert!(!core(0, 0, 0) && !core(5, 3, 0) && !core(5, 5, MAX_DAMAGE_RANGES + 1));
    let damaged = vec![(u64::MAX, u64::MAX); MAX_DAMAGE_RANGES];
    let (first, prev_term, last) = (u64::MAX, u64::MAX, u64::MAX);
    let longest = Core { incarnation: u64::MAX, first, prev_term, last, fresh: true, state_suspect: true, damaged };
    let mut t = Vec::new();
    encode_core(&mut t, u64::MAX, u16::MAX, &longest);
    assert_eq!(t.len() as u64, MOST_CORE_BYTES);
    for (suspect, fresh) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut t = Vec::new();
        let core =
            Core { incarnation: 1, first: 1, prev_term: 0, last: 0, fresh, state_suspect: suspect, damaged: vec![] };
        encode_core(&mut t, 1, 0, &core);
        let Some(Ok(Record { body: Body::Core(read), .. })) = Records::new(Reader::new(&t), 10).next() else {
            panic!("{core:?}")
        };
        assert_eq!(read, core);
        // The flags are the last byte but one; unknown bits are refused.
        let at = t.len() - 2;
        t[at] |= 4;
        assert!(!matches!(Records::new(Reader::new(&t), 10).next(), Some(Ok(_))));
    }
    let piece = |first, count| {
        let piece = PieceDesc {
            first,
            count,
            slots: 2,
            terms: if count > 0 { smallvec![(count, 7)] } else { smallvec![] },
            ..desc()
        };
        whole(&|t| encode_pieces(t, RunKind::Append, 1, 0, std::slice::from_ref(&piece)))
    };
    assert!(piece(1, 1) && piece(1, 2));
    assert!(!piece(0, 1) && !piece(1, 0), "an index 0, and a piece of nothing");
    assert!(whole(&|t| encode_truncate(t, 1, 0, 1, Some(0))) && whole(&|t| encode_reset(t, 1, 0, u64::MAX, 0)));
    assert!(!whole(&|t| encode_truncate(t, 1, 0, 0, Some(0))) && !whole(&|t| encode_reset(t, 1, 0, 0, 0)));
    assert!(whole(&|t| encode_truncate(t, 1, 0, 1, None)) && !whole(&|t| encode_truncate(t, 1, 0, 0, None)));
    assert!(whole(&|t| encode_cut(t, 1, 0, 1)) && whole(&|t| encode_cut(t, 1, 0, u64::MAX)));
    assert!(!whole(&|t| encode_cut(t, 1, 0, 0)));
    // As many lengths as there are bytes left, and one more.
    let lens = |bytes: &[u8]| Lens::decode(&mut Reader::new(bytes)).map(|l| (l.count(), l.iter().collect::<Vec<_>>()));
    assert_eq!(lens(&[2, 5, 6]), Some((2, vec![5, 6])));
    assert_eq!([lens(&[3, 5, 6]), lens(&[1, 0x80])], [None, None]);
    assert_eq!(lens(&[0, 5]), Some((0, vec![])));
}
