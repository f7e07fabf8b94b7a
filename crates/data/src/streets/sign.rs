//! The faces of traffic signs.

use super::label::Label;
use super::painter::Figure;
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

/// The face of a traffic sign.
#[derive(Clone, Copy)]
pub(super) enum Face {
    /// White or yellow in a red ring: no more than a number, or no way through.
    Ring,
    /// A red disc with a white bar.
    NoEntry,
    /// A blue disc with an arrow.
    Arrow,
    /// A white triangle in red; upside down: give way.
    Triangle { down: bool },
    /// A blue square.
    Square,
    /// A red octagon.
    Stop,
    /// A yellow square on its corner.
    Diamond,
    /// A plate with writing on it: blue, green, white or yellow.
    Plate(u32),
}

impl Face {
    pub(super) fn drawn(rng: &mut KeyedRng) -> Self {
        match rng.below(11) {
            0..2 => Self::Ring,
            2 => Self::NoEntry,
            3 => Self::Arrow,
            4 => Self::Triangle { down: false },
            5 => Self::Triangle { down: true },
            6..8 => Self::Square,
            8 => Self::Stop,
            9 => Self::Diamond,
            _ => Self::Plate([0x24_5aa0, 0x2c_6e44, 0xe4_e4e0, 0xe0_b830][rng.below(4)]),
        }
    }

    /// Paints the face around (0, y); returns how far it reaches up and down.
    pub(super) fn paint(self, figure: &mut Figure, y: f32) -> f32 {
        const SIGN: Label = Label::TrafficSign;
        let [red, white, blue, yellow, dark] = [0xc0_2c2c, 0xf0_f0ec, 0x22_58a8, 0xea_c030, 0x24_2424].map(Rgb::hex);
        let r = 0.42;
        match self {
            Self::Ring => {
                figure.ellipse(SIGN, red, [0.0, y], [r, r]);
                figure.ellipse(SIGN, white, [0.0, y], [0.7 * r, 0.7 * r]);
                figure.rectangle(SIGN, dark, [-0.18, y - 0.13], [-0.04, y + 0.13]);
                figure.rectangle(SIGN, dark, [0.04, y - 0.13], [0.18, y + 0.13]);
            }
            Self::NoEntry => {
                figure.ellipse(SIGN, red, [0.0, y], [r, r]);
                figure.rectangle(SIGN, white, [-0.3, y - 0.07], [0.3, y + 0.07]);
            }
            Self::Arrow => {
                figure.ellipse(SIGN, blue, [0.0, y], [r, r]);
                figure.limb(SIGN, white, [0.0, y - 0.25], [0.0, y + 0.1], [0.1, 0.1]);
                figure.polygon(SIGN, white, &[[-0.16, y + 0.05], [0.16, y + 0.05], [0.0, y + 0.28]]);
            }
            Self::Triangle { down } => {
                let up = if down { -1.0 } else { 1.0 };
                let triangle = |r: f32| [[-r, y - 0.6 * r * up], [r, y - 0.6 * r * up], [0.0, y + 1.13 * r * up]];
                figure.polygon(SIGN, red, &triangle(0.5));
                figure.polygon(SIGN, white, &triangle(0.32));
            }
            Self::Square => {
                figure.rectangle(SIGN, blue, [-0.38, y - 0.38], [0.38, y + 0.38]);
                figure.rectangle(SIGN, white, [-0.14, y - 0.26], [-0.04, y + 0.26]);
                figure.rectangle(SIGN, white, [-0.06, y], [0.18, y + 0.26]);
                figure.rectangle(SIGN, blue, [-0.04, y + 0.08], [0.09, y + 0.18]);
            }
            Self::Stop => {
                let corners = [
                    [-0.41, 1.0],
                    [0.41, 1.0],
                    [1.0, 0.41],
                    [1.0, -0.41],
                    [0.41, -1.0],
                    [-0.41, -1.0],
                    [-1.0, -0.41],
                    [-1.0, 0.41],
                ];
                figure.polygon(SIGN, red, &corners.map(|[dx, dy]| [dx * r, y + dy * r]));
                figure.rectangle(SIGN, white, [-0.28, y - 0.09], [0.28, y + 0.09]);
            }
            Self::Diamond => {
                let diamond = |r: f32| [[0.0, y - r], [r, y], [0.0, y + r], [-r, y]];
                figure.polygon(SIGN, white, &diamond(0.46));
                figure.polygon(SIGN, yellow, &diamond(0.34));
            }
            Self::Plate(hex) => {
                let ground = Rgb::hex(hex);
                let ink = if ground.mean() > 0.4 { dark } else { white };
                figure.rectangle(SIGN, ground, [-0.9, y - 0.35], [0.9, y + 0.35]);
                figure.rectangle(SIGN, ink, [-0.7, y + 0.06], [0.5, y + 0.2]);
                figure.rectangle(SIGN, ink, [-0.7, y - 0.2], [0.2, y - 0.06]);
                return 0.35;
            }
        }
        0.45
    }
}
