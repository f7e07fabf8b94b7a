//! What stands on the pavement: lamp posts, traffic lights, signs, bollards, bins.

use super::camera::Point;
use super::label::Label;
use super::painter::{Figure, Painter, Thing};
use super::rgb::Rgb;
use super::sign::Face;
use crate::keyed::KeyedRng;

const METAL: [u32; 7] = [0x88_8a8c, 0x5c_5e60, 0x44_4a48, 0xa4_a6a6, 0x70_6a62, 0x38_3c44, 0x5a_6450];

/// Something on a post.
pub(super) struct Post {
    pub(super) foot: Point,
    pub(super) kind: PostKind,
    pub(super) metal: Rgb,
    /// -1 or 1: the side on which the road is.
    pub(super) toward_road: f32,
}

/// What a post carries.
#[derive(Clone, Copy)]
pub(super) enum PostKind {
    /// A lamp of that height.
    Lamp {
        height: f32,
        lit: f32,
    },
    Bare {
        height: f32,
    },
    /// A traffic light; `phase` is 0 for red, 1 for amber, 2 for green. With an arm it hangs over the road.
    Light {
        phase: usize,
        arm: f32,
    },
    Sign {
        height: f32,
        face: Face,
        second: Option<Face>,
    },
    Bollard,
    Bin,
}

impl Post {
    pub(super) fn metal(rng: &mut KeyedRng) -> Rgb {
        Rgb::drawn(rng, &METAL, 0.25)
    }

    fn height(&self) -> f32 {
        match self.kind {
            PostKind::Lamp { height, .. } | PostKind::Bare { height } | PostKind::Sign { height, .. } => height,
            PostKind::Light { arm, .. } => {
                if arm > 0.0 {
                    5.6
                } else {
                    3.4
                }
            }
            PostKind::Bollard | PostKind::Bin => 0.95,
        }
    }
}

impl Thing for Post {
    fn depth(&self) -> f32 {
        self.foot[2]
    }

    fn cast(&self, painter: &mut Painter) {
        let [x, _, z] = self.foot;
        let r = if matches!(self.kind, PostKind::Bin) { 0.25 } else { 0.07 };
        let foot = [[x - r, z - r], [x + r, z - r], [x + r, z + r], [x - r, z + r]];
        painter.sun_shadow(&foot, [0.0, self.height()]);
        painter.contact_shadow([x, z], [0.0, 1.0], [2.0 * r, 2.0 * r]);
    }

    fn paint(&self, painter: &mut Painter) {
        let (height, metal, road) = (self.height(), self.metal, self.toward_road);
        let mut figure = painter.figure(self.foot, height * 0.6);
        let thin = [0.15, 0.1];
        match self.kind {
            PostKind::Lamp { lit, .. } => {
                figure.limb(Label::Pole, metal, [0.0, 0.0], [0.0, height], [0.2, 0.11]);
                figure.limb(Label::Pole, metal, [0.0, height], [road * 1.5, height + 0.3], [0.1, 0.09]);
                let head = [road * 1.7, height + 0.28];
                figure.ellipse(Label::Pole, metal, head, [0.42, 0.13]);
                if lit > 0.0 {
                    figure.lamp(Label::Pole, Rgb::new(1.0, 0.82, 0.5) * 1.3, [head[0], head[1] - 0.06], 0.13, 1.0);
                }
            }
            PostKind::Bare { height } => figure.limb(Label::Pole, metal, [0.0, 0.0], [0.0, height], [0.18, 0.13]),
            PostKind::Bollard => {
                figure.limb(Label::Pole, metal, [0.0, 0.0], [0.0, 0.9], [0.16, 0.16]);
                figure.limb(Label::Pole, Rgb::grey(0.7), [0.0, 0.68], [0.0, 0.78], [0.165, 0.165]);
            }
            PostKind::Bin => {
                figure.polygon(Label::Void, metal * 0.8, &[[-0.22, 0.0], [0.22, 0.0], [0.28, 0.85], [-0.28, 0.85]]);
                figure.rectangle(Label::Void, metal * 0.4, [-0.3, 0.8], [0.3, 0.92]);
            }
            PostKind::Light { phase, arm } => {
                figure.limb(Label::Pole, metal, [0.0, 0.0], [0.0, height], [0.18, 0.14]);
                let mut heads = vec![[0.0, 2.9]];
                if arm > 0.0 {
                    figure.limb(Label::Pole, metal, [0.0, height], [road * arm, height + 0.1], [0.13, 0.09]);
                    heads.push([road * arm, height]);
                }
                for [x, y] in heads {
                    traffic_light(&mut figure, [x, y], phase);
                }
            }
            PostKind::Sign { face, second, .. } => {
                figure.limb(Label::Pole, metal, [0.0, 0.0], [0.0, height + 0.1], thin);
                let reach = face.paint(&mut figure, height - 0.35);
                if let Some(second) = second {
                    second.paint(&mut figure, height - 0.35 - reach - 0.5);
                }
            }
        }
    }
}

fn traffic_light(figure: &mut Figure, [x, y]: [f32; 2], phase: usize) {
    let body = Rgb::hex(0x22_2624);
    figure.rectangle(Label::TrafficLight, body, [x - 0.22, y - 0.58], [x + 0.22, y + 0.58]);
    let colors = [Rgb::new(1.5, 0.12, 0.06), Rgb::new(1.4, 0.75, 0.08), Rgb::new(0.1, 1.3, 0.5)];
    for (i, color) in colors.into_iter().enumerate() {
        let middle = [x, y + 0.36 - 0.36 * i as f32];
        if i == phase {
            figure.lamp(Label::TrafficLight, color, middle, 0.15, 1.0);
        } else {
            figure.ellipse(Label::TrafficLight, color * 0.06, middle, [0.13, 0.13]);
        }
    }
}
