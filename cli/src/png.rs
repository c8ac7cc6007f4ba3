//! Pictures as PNG.

use crate::failure::{Failure, Result};

/// Pixels per unit of the drawing: sharp on today's screens.
#[cfg(feature = "png")]
const SCALE: f32 = 2.0;

/// Renders a drawing with the fonts of this machine.
#[cfg(feature = "png")]
pub fn render(drawing: &str) -> Result<Vec<u8>> {
    use resvg::{tiny_skia, usvg};

    let failed = |what: &str| Failure::Request(format!("{what}; --svg draws the same for browsers"));
    let mut options = usvg::Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_system_fonts();
    if fonts.is_empty() {
        return Err(failed("there are no fonts on this machine to write the legend with"));
    }
    // If no known family is installed, any other is better than none.
    let family = fonts.faces().find_map(|face| face.families.first().map(|(name, _)| name.clone()));
    if let Some(family) = family {
        let known = ["Liberation Sans", "Noto Sans", "DejaVu Sans", "Arial"];
        let has = |name: &str| fonts.faces().any(|face| face.families.iter().any(|(f, _)| f == name));
        let sans = known.iter().find(|name| has(name)).map_or(family, |name| (*name).to_owned());
        fonts.set_sans_serif_family(sans);
    }
    let tree =
        usvg::Tree::from_str(drawing, &options).map_err(|e| failed(&format!("the picture cannot be rendered: {e}")))?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or_else(|| failed("the picture is too large"))?;
    let mut dots =
        tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| failed("the picture is too large"))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(SCALE, SCALE), &mut dots.as_mut());
    dots.encode_png().map_err(|e| failed(&format!("the picture cannot be encoded: {e}")))
}

/// Refuses, and says which build can draw PNG.
#[cfg(not(feature = "png"))]
pub fn render(_drawing: &str) -> Result<Vec<u8>> {
    let why = "this build draws no PNG: build it with `--features png`, or use --svg";
    Err(Failure::Request(why.into()))
}
