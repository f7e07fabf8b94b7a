//! People on foot and riders.

use super::camera::Point;
use super::label::Label;
use super::painter::{Figure, Painter, Thing};
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

const CLOTH: [u32; 20] = [
    0x20_2228, 0x34_3a4a, 0x50_545c, 0x74_7478, 0x9c_9890, 0xd4_d0c8, 0x28_4068, 0x40_6484, 0x82_2c30, 0xb4_3c34,
    0x3c_5a3c, 0x6c_6c44, 0x90_7048, 0xc8_a048, 0x60_3c54, 0xb0_6078, 0x54_4034, 0x30_5c5c, 0xe0_e0e0, 0xd8_7830,
];
const LEGS: [u32; 8] = [0x24_2a3c, 0x34_4668, 0x1c_1c20, 0x48_4844, 0x70_6858, 0x94_8a78, 0x58_6478, 0x30_2824];
const SKIN: [u32; 6] = [0xe8_bc9c, 0xd8_a484, 0xb8_845c, 0x8c_5c40, 0x60_4030, 0xf0_cdb4];
const HAIR: [u32; 6] = [0x20_1a18, 0x48_3020, 0x7c_5c38, 0xb8_9860, 0x80_7c78, 0x90_4828];

/// What somebody wears.
#[derive(Clone, Debug)]
pub(super) struct Dress {
    pub(super) top: Rgb,
    pub(super) legs: Rgb,
    pub(super) shoes: Rgb,
    pub(super) skin: Rgb,
    pub(super) hair: Rgb,
}

impl Dress {
    pub(super) fn drawn(rng: &mut KeyedRng) -> Self {
        Self {
            top: Rgb::drawn(rng, &CLOTH, 0.2),
            legs: Rgb::drawn(rng, &LEGS, 0.25),
            shoes: Rgb::drawn(rng, &[0x20_1c1a, 0xe0_dcd4, 0x5c_4030], 0.2),
            skin: Rgb::drawn(rng, &SKIN, 0.1),
            hair: Rgb::drawn(rng, &HAIR, 0.2),
        }
    }
}

/// Somebody on foot.
pub(super) struct Person {
    foot: Point,
    height: f32,
    dress: Dress,
    /// -1 or 1 for a walk to the left or the right, 0 for one towards us or away.
    heading: f32,
    /// The phase of the step, -1 to 1.
    step: f32,
    coat: bool,
    bag: Option<Rgb>,
    /// Whether we see the back of the head.
    away: bool,
    broad: f32,
}

impl Person {
    pub(super) fn new(rng: &mut KeyedRng, foot: Point, heading: f32) -> Self {
        let child = rng.chance(0.12);
        let height = if child { rng.between(1.05, 1.45) } else { rng.between(1.58, 1.92) };
        let dress = Dress::drawn(rng);
        Self {
            foot,
            height,
            dress,
            heading,
            step: rng.between(-1.0, 1.0),
            coat: rng.chance(0.35),
            bag: rng.chance(0.35).then(|| Rgb::drawn(rng, &CLOTH, 0.2)),
            away: rng.chance(0.5),
            broad: rng.between(0.9, 1.18),
        }
    }
}

impl Thing for Person {
    fn depth(&self) -> f32 {
        self.foot[2]
    }

    fn cast(&self, painter: &mut Painter) {
        let [x, _, z] = self.foot;
        let foot = [[x - 0.2, z - 0.12], [x + 0.2, z - 0.12], [x + 0.2, z + 0.12], [x - 0.2, z + 0.12]];
        painter.sun_shadow(&foot, [0.0, self.height]);
        painter.contact_shadow([x, z], [0.0, 1.0], [0.18, 0.24]);
    }

    fn paint(&self, painter: &mut Painter) {
        const LABEL: Label = Label::Person;
        let tall = self.height;
        let dress = &self.dress;
        let mut figure = painter.figure(self.foot, tall * 0.6);
        let side = self.heading != 0.0;
        let stride = self.step * if side { 0.17 } else { 0.05 };
        let wide = self.broad * if side { 0.72 } else { 1.0 };
        let at = |x: f32, y: f32| [x * tall, y * tall];
        let thick = |a: f32, b: f32| [a * tall * self.broad, b * tall * self.broad];
        let hip = if side { 0.02 } else { 0.05 };
        // The limb behind the body, the body, the limb before it.
        let leg = |figure: &mut Figure, sign: f32, shade: f32| {
            let foot = sign * stride + if side { 0.0 } else { sign * 0.055 };
            let knee = [f32::midpoint(sign * hip, foot) + 0.03 * self.heading, 0.27];
            figure.limb(LABEL, dress.legs * shade, at(sign * hip, 0.5), at(knee[0], knee[1]), thick(0.1, 0.075));
            figure.limb(LABEL, dress.legs * shade, at(knee[0], knee[1] + 0.015), at(foot, 0.03), thick(0.075, 0.055));
            let toe = foot + 0.035 * self.heading;
            figure.ellipse(LABEL, dress.shoes * shade, at(toe, 0.02), [0.045 * tall, 0.022 * tall]);
        };
        let arm = |figure: &mut Figure, sign: f32, shade: f32| {
            let shoulder = if side { 0.0 } else { sign * 0.115 * wide };
            let hand = if side { -sign * stride * 1.1 } else { sign * 0.15 * wide };
            let elbow = [f32::midpoint(shoulder, hand) - 0.015 * self.heading, 0.63];
            figure.limb(LABEL, dress.top * shade, at(shoulder, 0.8), at(elbow[0], elbow[1]), thick(0.065, 0.055));
            figure.limb(LABEL, dress.top * shade, at(elbow[0], elbow[1] + 0.01), at(hand, 0.49), thick(0.055, 0.042));
            figure.ellipse(LABEL, dress.skin * shade, at(hand, 0.475), [0.024 * tall, 0.028 * tall]);
        };
        arm(&mut figure, -1.0, 0.75);
        leg(&mut figure, -1.0, 0.8);
        leg(&mut figure, 1.0, 1.0);
        let hem = if self.coat { 0.36 } else { 0.47 };
        let torso = [
            (-0.1, hem),
            (0.1, hem),
            (0.095, 0.62),
            (0.125, 0.79),
            (0.06, 0.845),
            (-0.06, 0.845),
            (-0.125, 0.79),
            (-0.095, 0.62),
        ];
        figure.polygon(LABEL, dress.top, &torso.map(|(x, y)| at(x * wide, y)));
        if let Some(color) = self.bag {
            if side {
                figure.ellipse(LABEL, color, at(-0.1 * self.heading, 0.7), [0.06 * tall, 0.1 * tall]);
            } else if self.away {
                figure.rectangle(LABEL, color, at(-0.08, 0.58), at(0.08, 0.8));
            } else {
                figure.rectangle(LABEL, color, at(0.1, 0.42), at(0.2, 0.54));
            }
        }
        arm(&mut figure, 1.0, 1.05);
        head(&mut figure, LABEL, dress, at(0.0, 0.925), tall, self.heading, self.away);
    }
}

/// A head of somebody of that height, its middle at a place of the figure.
pub(super) fn head(
    figure: &mut Figure,
    label: Label,
    dress: &Dress,
    middle: [f32; 2],
    tall: f32,
    heading: f32,
    away: bool,
) {
    let [x, y] = middle;
    figure.limb(label, dress.skin * 0.8, [x, y - 0.09 * tall], [x, y], [0.05 * tall, 0.05 * tall]);
    figure.ellipse(label, dress.hair, [x - 0.01 * heading * tall, y + 0.008 * tall], [0.054 * tall, 0.067 * tall]);
    if !away || heading != 0.0 {
        figure.ellipse(label, dress.skin, [x + 0.014 * heading * tall, y - 0.012 * tall], [0.042 * tall, 0.052 * tall]);
    }
}
