use super::*;

/// A map of `width` columns whose class changes at the given columns.
fn columns(width: usize, height: usize, edges: &[usize]) -> Vec<u32> {
    let class = |x: usize| edges.iter().filter(|&&edge| edge <= x).count() as u32;
    (0..height).flat_map(|_| (0..width).map(class)).collect()
}

fn score(labels: &[u32], predicted: &[u32], width: usize, tolerance: usize) -> Option<f64> {
    BoundaryF1::new(4).add(labels, predicted, width, tolerance).unwrap()
}

#[test]
fn a_shifted_edge_matches_within_the_tolerance() {
    let truth = columns(12, 5, &[4]);
    assert_eq!(score(&truth, &truth, 12, 0), Some(1.0));
    for (edge, tolerance, expected) in [(5, 0, 0.0), (5, 1, 1.0), (7, 2, 0.0), (7, 3, 1.0)] {
        assert_eq!(score(&truth, &columns(12, 5, &[edge]), 12, tolerance), Some(expected), "{edge} {tolerance}");
    }
}

/// Worked out by hand: the prediction has the edge of the truth and another one, far from it.
#[test]
fn precision_and_recall_make_the_score() {
    let (truth, predicted) = (columns(20, 1, &[4]), columns(20, 1, &[4, 12]));
    let mut scores = BoundaryF1::new(4);
    // Class 0: 1 of 1 and 1 of 1. Class 1: of 2 predicted 1, of 1 labelled 1. Class 2: 1 predicted, none labelled.
    let expected = [Some(1.0), Some(2.0 / 3.0), Some(0.0), None];
    let image = scores.add(&truth, &predicted, 20, 2).unwrap().unwrap();
    assert!((image - 5.0 / 9.0).abs() < 1e-9, "{image}");
    for (class, expected) in scores.per_class().into_iter().zip(expected) {
        assert!(class.zip(expected).map_or(class == expected, |(a, b)| (a - b).abs() < 1e-9), "{class:?} {expected:?}");
    }
    // Another image, without an error in classes 0 and 1: classes and split are means over images.
    scores.add(&truth, &truth, 20, 2).unwrap();
    assert!((scores.mean().unwrap() - 7.0 / 9.0).abs() < 1e-9);
    assert!((scores.per_class()[1].unwrap() - 5.0 / 6.0).abs() < 1e-9);
}

#[test]
fn void_makes_no_boundary_and_hides_what_lies_in_it() {
    let plain = vec![1; 30];
    let mut truth = plain.clone();
    truth[12..18].fill(VOID);
    // Nothing beside void is a boundary, and what is predicted inside it or at its rim does not count.
    assert_eq!(score(&truth, &plain, 6, 1), None);
    let mut predicted = plain.clone();
    predicted[13..16].fill(2);
    assert_eq!(score(&truth, &predicted, 6, 1), None);
    // The edge of the image is no boundary.
    assert_eq!(score(&plain, &plain, 6, 1), None);
    // Another class on both sides of the void: no boundary between them, as no two scored neighbours differ.
    let mut sides = truth.clone();
    sides[18..].fill(2);
    assert_eq!(score(&sides, &sides, 6, 1), None);
    let mut scores = BoundaryF1::new(4);
    assert_eq!(scores.add(&truth, &plain, 6, 1), Ok(None));
    assert_eq!((scores.mean(), scores.per_class()), (None, vec![None; 4]));
}

/// The definition, pixel against pixel.
fn plain(labels: &[u32], predicted: &[u32], width: usize, tolerance: usize) -> Vec<Option<f64>> {
    let boundary = |map: &[u32], class: u32| -> Vec<(i64, i64)> {
        let at = |x: i64, y: i64| {
            let inside = (0..width as i64).contains(&x) && y >= 0 && (y as usize) < labels.len() / width;
            let pixel = || y as usize * width + x as usize;
            (inside && labels[pixel()] != VOID).then(|| map[pixel()])
        };
        let all = (0..labels.len()).map(|pixel| ((pixel % width) as i64, (pixel / width) as i64));
        all.filter(|&(x, y)| {
            let neighbours = [at(x - 1, y), at(x + 1, y), at(x, y - 1), at(x, y + 1)];
            at(x, y) == Some(class) && neighbours.into_iter().flatten().any(|other| other != class)
        })
        .collect()
    };
    let share = |of: &[(i64, i64)], among: &[(i64, i64)]| {
        let near =
            |a: &(i64, i64), b: &(i64, i64)| (a.0 - b.0).pow(2) + (a.1 - b.1).pow(2) <= (tolerance * tolerance) as i64;
        of.iter().filter(|a| among.iter().any(|b| near(a, b))).count() as f64 / of.len().max(1) as f64
    };
    let score = |class| {
        let (truth, prediction) = (boundary(labels, class), boundary(predicted, class));
        let (precision, recall) = (share(&prediction, &truth), share(&truth, &prediction));
        let sum = if precision + recall > 0.0 { precision + recall } else { 1.0 };
        (!truth.is_empty() || !prediction.is_empty()).then(|| 2.0 * precision * recall / sum)
    };
    (0..4).map(score).collect()
}

#[test]
fn agrees_with_the_definition_on_blotches() {
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for (width, height, tolerance) in [(13, 9, 1), (9, 14, 2), (16, 16, 0), (5, 4, 7)] {
        let mut map = |void: bool| {
            let mut map = vec![0; width * height];
            for _ in 0..12 {
                let (x, y, side) =
                    (random(width as u64) as usize, random(height as u64) as usize, 1 + random(5) as usize);
                let class = if void && random(4) == 0 { VOID } else { random(4) as u32 };
                for row in y..(y + side).min(height) {
                    map[row * width + x..row * width + (x + side).min(width)].fill(class);
                }
            }
            map
        };
        for _ in 0..20 {
            let (labels, predicted) = (map(true), map(false));
            let mut scores = BoundaryF1::new(4);
            scores.add(&labels, &predicted, width, tolerance).unwrap();
            for (actual, expected) in scores.per_class().into_iter().zip(plain(&labels, &predicted, width, tolerance)) {
                assert_eq!(actual.is_some(), expected.is_some());
                assert!((actual.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs() < 1e-9, "{actual:?} {expected:?}");
            }
        }
    }
}

#[test]
fn merging_parts_counts_as_the_whole() {
    let images: Vec<(Vec<u32>, Vec<u32>)> =
        (1..7).map(|edge| (columns(9, 4, &[edge]), columns(9, 4, &[edge, edge + 2]))).collect();
    let mut whole = BoundaryF1::new(4);
    let mut parts = [BoundaryF1::new(4), BoundaryF1::new(4)];
    for (index, (labels, predicted)) in images.iter().enumerate() {
        whole.add(labels, predicted, 9, 1).unwrap();
        parts[index % 2].add(labels, predicted, 9, 1).unwrap();
    }
    let [mut merged, other] = parts;
    merged.merge(&other).unwrap();
    assert_eq!(merged, whole);
    assert_eq!(merged.merge(&BoundaryF1::new(3)), Err(MetricsError::Classes { ours: 4, theirs: 3 }));
}

#[test]
fn what_cannot_be_scored_is_refused_whole() {
    let mut scores = BoundaryF1::new(2);
    assert_eq!(scores.add(&[0, 1], &[0], 1, 1), Err(MetricsError::Length { truth: 2, predicted: 1 }));
    assert_eq!(scores.add(&[0, 2], &[0, 0], 1, 1), Err(MetricsError::Label { label: 2, pixel: 1, classes: 2 }));
    assert_eq!(scores.add(&[0, 1, 1], &[0, 1, 1], 2, 1), Err(MetricsError::Rows { values: 3, width: 2 }));
    assert_eq!(scores.add(&[], &[], 0, 1), Err(MetricsError::Rows { values: 0, width: 0 }));
    assert_eq!(scores, BoundaryF1::new(2));
}
