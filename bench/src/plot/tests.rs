use super::*;
use crate::histogram::Latencies;

const PLAIN: Terminal = Terminal { columns: 80, unicode: false, colour: false };

fn curve(base_ns: u64) -> Vec<CurvePoint> {
    let mut latencies = Latencies::new();
    for nth in 0..10_000 {
        latencies.record(base_ns + nth * nth / 1000);
    }
    latencies.curve()
}

#[test]
fn ascii_is_ascii_and_keeps_to_the_width() {
    let (fast, slow) = (curve(100_000), curve(1_000_000));
    let curves = [Curve { name: "fast", points: &fast }, Curve { name: "slow", points: &slow }];
    for columns in [40, 80, 200] {
        let text = render(&curves, Terminal { columns, ..PLAIN });
        assert!(text.is_ascii());
        let width = text.lines().map(str::len).max().expect("lines");
        assert!(width <= columns.min(COLUMNS_MAX) + 4, "{width} of {columns}");
        assert!(text.contains("a fast") && text.contains("b slow"), "{text}");
    }
}

#[test]
fn a_faster_curve_lies_below_a_slower_one() {
    let (fast, slow) = (curve(100_000), curve(1_000_000));
    let text = render(
        &[Curve { name: "fast", points: &fast }, Curve { name: "slow", points: &slow }],
        PLAIN,
    );
    let row_of = |mark: char| {
        let plot = text.lines().take(ROWS);
        plot.into_iter().position(|line| line[MARGIN..].contains(mark)).expect("drawn")
    };
    assert!(row_of('b') < row_of('a'), "{text}");
}

#[test]
fn colours_and_braille_where_they_can_be_shown() {
    let points = curve(100_000);
    let terminal = Terminal { columns: 80, unicode: true, colour: true };
    let text = render(&[Curve { name: "x", points: &points }], terminal);
    assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)));
    assert!(text.contains("\x1b[36m"));
}

#[test]
fn nothing_to_show_shows_nothing() {
    assert_eq!(render(&[], PLAIN), "");
    assert_eq!(render(&[Curve { name: "x", points: &[] }], PLAIN), "");
}

#[test]
fn flat_curves_have_an_axis() {
    let points: Vec<_> = [0.0, 0.5, 0.9].map(|quantile| CurvePoint { quantile, ns: 1000 }).into();
    let axes = Axes::around(&[Curve { name: "x", points: &points }]).expect("axes");
    assert!(axes.latencies.max > axes.latencies.min);
    assert!(axes.y(1000.0).is_finite());
    assert!(!axes.latencies.ticks(TICKS).is_empty());
}

#[test]
fn every_nine_is_as_wide_as_the_next() {
    let axes = Axes { quantiles: Axis::nines(0.9999), latencies: Axis::log(1.0, 10.0) };
    let widths = [(0.0, 0.9), (0.9, 0.99), (0.99, 0.999)].map(|(a, b)| axes.x(b) - axes.x(a));
    assert!(widths.iter().all(|width| (width - 0.25).abs() < 1e-6), "{widths:?}");
}
