//! Walls, fences and rails, in pieces.

use super::camera::Point;
use super::label::Label;
use super::light::Surface;
use super::noise::{cell, floor, fractal, wrap};
use super::painter::{Facing, Painter, Thing};
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

/// A piece of a wall or a fence.
pub(super) struct Panel {
    pub(super) ends: [Point; 2],
    pub(super) height: f32,
    pub(super) kind: PanelKind,
    pub(super) color: Rgb,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum PanelKind {
    Wall,
    /// Upright boards with narrow gaps.
    Boards,
    /// Thin bars with wide gaps.
    Bars,
    /// Two beams along the road.
    Rail,
}

impl PanelKind {
    pub(super) fn color(self, rng: &mut KeyedRng) -> Rgb {
        let colors: &[u32] = match self {
            Self::Wall => &[0xb0_a898, 0x8c_8a86, 0x98_6450, 0xd8_d4c8, 0x6e_6e70, 0xa8_9474],
            Self::Boards => &[0x84_6a50, 0x6a_5a4c, 0xd4_d0c8, 0x58_6a50, 0x9a_8a70],
            Self::Bars => &[0x30_3432, 0x54_6a58, 0x80_8488, 0x44_4440],
            Self::Rail => &[0xa0_a4a6, 0x84_8684, 0xc0_c2c0],
        };
        Rgb::drawn(rng, colors, 0.25)
    }
}

impl Thing for Panel {
    fn depth(&self) -> f32 {
        self.ends[0][2].max(self.ends[1][2])
    }

    fn cast(&self, painter: &mut Painter) {
        let foot = self.ends.map(|[x, _, z]| [x, z]);
        if matches!(self.kind, PanelKind::Wall | PanelKind::Boards) {
            painter.sun_shadow(&foot, [0.0, self.height]);
        }
    }

    fn paint(&self, painter: &mut Painter) {
        let [a, b] = self.ends;
        let corners = [a, b, [b[0], self.height, b[2]], [a[0], self.height, a[2]]];
        let (start, height, color) = (a[2], self.height, self.color);
        let near = start < 22.0;
        let label = if self.kind == PanelKind::Wall { Label::Wall } else { Label::Fence };
        painter.textured(&corners, Facing::Both, label, |u, v| {
            let along = start + u;
            let stains = 0.75 + 0.5 * fractal(along * 0.4, v * 0.8);
            let mut clear = 0.0;
            let shade = match self.kind {
                PanelKind::Wall => {
                    let course = floor(v / 0.4) as f32;
                    let cap = if v > height - 0.14 { 1.2 } else { 1.0 };
                    cap * (0.85 + 0.3 * cell((along + 0.45 * course) / 0.9, course, 3))
                }
                PanelKind::Boards => {
                    let board = along / 0.16;
                    let gap = near && wrap(board, 1.0) < 0.12 && v < height - 0.1;
                    if gap { 0.2 } else { 0.85 + 0.3 * cell(board, 0.0, 4) }
                }
                PanelKind::Bars => {
                    let frame = v > height - 0.09 || (0.12..0.2).contains(&v) || wrap(along, 2.5) < 0.09;
                    // What is seen between the bars belongs to the fence; farther away bars melt into a veil.
                    if !frame {
                        clear = if !near {
                            0.72
                        } else if wrap(along, 0.16) > 0.045 {
                            1.0
                        } else {
                            0.0
                        };
                    }
                    1.0
                }
                PanelKind::Rail => {
                    let post = wrap(along, 2.0) < 0.12;
                    if !post && !(0.3..0.62).contains(&v) {
                        return None;
                    }
                    if (0.42..0.5).contains(&v) { 0.75 } else { 1.0 }
                }
            };
            Some(Surface { albedo: color * (shade * stains), clear, ..Surface::default() })
        });
    }
}
