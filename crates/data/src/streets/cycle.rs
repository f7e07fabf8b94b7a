//! Bicycles and motorcycles, ridden or parked.

use super::camera::Point;
use super::canvas::Paint;
use super::label::Label;
use super::painter::{Figure, Painter, Thing};
use super::person::{Dress, head};
use super::rgb::Rgb;
use crate::keyed::KeyedRng;

const FRAME: [u32; 9] =
    [0x24_2426, 0x80_8488, 0xa8_2c2c, 0x2c_5088, 0x34_5c40, 0xd0_d0cc, 0x78_5838, 0xc8_9830, 0x54_3a5c];

/// A two-wheeler and who rides it.
pub(super) struct Cycle {
    foot: Point,
    /// -1 or 1 when it is seen from the side, facing left or right; 0 when it comes or goes.
    heading: f32,
    /// Whether it goes, where it is seen from its end.
    away: bool,
    motor: bool,
    color: Rgb,
    rider: Option<Dress>,
    helmet: Option<Rgb>,
    lamps: f32,
}

impl Cycle {
    pub(super) fn new(rng: &mut KeyedRng, foot: Point, heading: f32, away: bool, ridden: bool, lamps: f32) -> Self {
        let motor = rng.chance(0.3);
        let color = Rgb::drawn(rng, &FRAME, 0.25);
        let rider = ridden.then(|| Dress::drawn(rng));
        let helmet = (motor || rng.chance(0.4)).then(|| Rgb::drawn(rng, &FRAME, 0.3));
        Self { foot, heading, away, motor, color, rider, helmet, lamps }
    }

    fn label(&self) -> Label {
        if self.motor { Label::Motorcycle } else { Label::Bicycle }
    }

    fn paint_side(&self, figure: &mut Figure) {
        let label = self.label();
        let f = self.heading;
        let (radius, base) = if self.motor { (0.31, 0.7) } else { (0.34, 0.53) };
        for x in [-base, base] {
            wheel(figure, label, [x, radius], radius, self.motor);
        }
        if self.motor {
            let tank = [(-0.75, 0.78), (-0.5, 0.62), (0.3, 0.6), (0.52, 0.85), (0.2, 1.0), (-0.05, 0.82), (-0.6, 0.88)];
            figure.limb(label, Rgb::grey(0.03), [f * -0.7, 0.35], [f * 0.3, 0.4], [0.12, 0.3]);
            figure.polygon(label, self.color, &tank.map(|(x, y)| [f * x, y]));
            figure.polygon(
                label,
                Rgb::grey(0.02),
                &[[f * -0.75, 0.8], [f * -0.05, 0.8], [f * -0.1, 0.9], [f * -0.7, 0.92]],
            );
            figure.limb(label, Rgb::grey(0.15), [f * 0.7, 0.31], [f * 0.42, 1.05], [0.07, 0.07]);
            figure.ellipse(label, Rgb::grey(0.5), [f * 0.58, 0.85], [0.09, 0.1]);
        } else {
            let tube = |figure: &mut Figure, a: [f32; 2], b: [f32; 2]| {
                figure.limb(label, self.color, [f * a[0], a[1]], [f * b[0], b[1]], [0.05, 0.05]);
            };
            let (crank, saddle, fork) = ([-0.08, 0.3], [-0.24, 0.85], [0.38, 0.88]);
            tube(figure, [-base, radius], crank);
            tube(figure, [-base, radius], [-0.2, 0.74]);
            tube(figure, crank, saddle);
            tube(figure, crank, [0.36, 0.78]);
            tube(figure, [-0.21, 0.78], [0.36, 0.82]);
            tube(figure, [base, radius], fork);
            figure.limb(label, Rgb::grey(0.03), [f * 0.38, 0.88], [f * 0.5, 0.98], [0.05, 0.06]);
            figure.ellipse(label, Rgb::grey(0.03), [f * -0.25, 0.9], [0.13, 0.045]);
        }
        let Some(dress) = &self.rider else { return };
        let rider = Label::Rider;
        let (seat, hand, pedal) = if self.motor {
            ([-0.35, 0.95], [0.38, 1.08], [-0.05, 0.38])
        } else {
            ([-0.25, 0.95], [0.44, 1.0], [0.0, 0.2])
        };
        let (knee, shoulder) = ([seat[0] + 0.42, seat[1] - 0.14], [seat[0] + 0.24, seat[1] + 0.52]);
        let limb = |figure: &mut Figure, color: Rgb, a: [f32; 2], b: [f32; 2], width: [f32; 2]| {
            figure.limb(rider, color, [f * a[0], a[1]], [f * b[0], b[1]], width);
        };
        limb(figure, dress.legs * 0.75, [seat[0], seat[1]], [seat[0] + 0.36, seat[1] - 0.3], [0.17, 0.13]);
        limb(figure, dress.legs, seat, knee, [0.19, 0.14]);
        limb(figure, dress.legs, [knee[0], knee[1] + 0.04], pedal, [0.14, 0.1]);
        limb(figure, dress.shoes, [pedal[0] - 0.06, pedal[1]], [pedal[0] + 0.16, pedal[1] - 0.02], [0.09, 0.07]);
        limb(figure, dress.top, [seat[0] - 0.02, seat[1] - 0.08], shoulder, [0.26, 0.32]);
        limb(figure, dress.top * 0.9, [shoulder[0], shoulder[1] - 0.04], [hand[0] - 0.12, hand[1] + 0.14], [0.13, 0.1]);
        limb(figure, dress.top * 0.9, [hand[0] - 0.15, hand[1] + 0.15], hand, [0.1, 0.08]);
        let middle = [f * (shoulder[0] + 0.1), shoulder[1] + 0.24];
        head(figure, rider, dress, middle, 1.75, f, false);
        self.paint_helmet(figure, middle);
    }

    fn paint_end(&self, figure: &mut Figure) {
        let label = self.label();
        let (radius, half) = if self.motor { (0.31, 0.08) } else { (0.34, 0.03) };
        figure.ellipse(label, Rgb::grey(0.02), [0.0, radius], [half, radius]);
        let bars = if self.motor { 1.05 } else { 1.0 };
        figure.limb(label, self.color, [0.0, radius], [0.0, bars - 0.1], [half * 2.5, half * 2.5]);
        if self.motor {
            figure.ellipse(label, self.color, [0.0, 0.78], [0.2, 0.24]);
        }
        figure.limb(label, Rgb::grey(0.04), [-0.3, bars], [0.3, bars], [0.05, 0.05]);
        if let Some(dress) = &self.rider {
            let rider = Label::Rider;
            for sign in [-1.0, 1.0] {
                let foot = [sign * 0.14, if sign > 0.0 { 0.18 } else { 0.36 }];
                figure.limb(rider, dress.legs, [sign * 0.09, 0.95], [sign * 0.17, 0.62], [0.18, 0.14]);
                figure.limb(rider, dress.legs, [sign * 0.17, 0.64], foot, [0.14, 0.1]);
                figure.ellipse(rider, dress.shoes, foot, [0.055, 0.05]);
                figure.limb(rider, dress.top * 0.9, [sign * 0.19, 1.4], [sign * 0.3, 1.02], [0.13, 0.09]);
            }
            let torso = [(-0.17, 0.88), (0.17, 0.88), (0.22, 1.4), (0.1, 1.5), (-0.1, 1.5), (-0.22, 1.4)];
            figure.polygon(rider, dress.top, &torso.map(|(x, y)| [x, y]));
            head(figure, rider, dress, [0.0, 1.66], 1.75, 0.0, self.away);
            self.paint_helmet(figure, [0.0, 1.66]);
        }
        let (lamp, on) = if self.away {
            (Rgb::new(1.0, 0.06, 0.04), 0.15 + 0.85 * self.lamps)
        } else {
            (Rgb::new(1.3, 1.2, 1.0), if self.motor { 1.0 } else { self.lamps })
        };
        let height = if self.motor { 0.85 } else { 0.78 };
        figure.lamp(label, lamp * on, [0.0, height], 0.05 + 0.04 * f32::from(u8::from(self.motor)), 0.0);
    }

    fn paint_helmet(&self, figure: &mut Figure, [x, y]: [f32; 2]) {
        let Some(color) = self.helmet else { return };
        let (low, r) = if self.motor { (0.01, 0.135) } else { (0.05, 0.11) };
        figure.ellipse(Label::Rider, color, [x, y + low + 0.02], [r, r * if self.motor { 1.05 } else { 0.75 }]);
        if self.motor && !(self.away && self.heading == 0.0) {
            figure.ellipse(Label::Rider, Rgb::grey(0.02), [x + 0.05 * self.heading, y + 0.01], [0.08, 0.05]);
        }
    }
}

/// A wheel from the side; what is seen through its spokes belongs to it.
fn wheel(figure: &mut Figure, label: Label, middle: [f32; 2], radius: f32, solid: bool) {
    let tone = figure.tone;
    let rim = if solid { 0.6 } else { 0.8 };
    figure.canvas.ellipse(figure.sample(middle), [radius * figure.scale; 2], |sample, dx, dy| {
        let square = dx * dx + dy * dy;
        let dark = tone.color(Rgb::grey(0.02), dx);
        let spoke = tone.color(Rgb::grey(0.25), dx);
        let rgb = if square > rim * rim { dark } else { sample.rgb.mix(spoke, if solid { 0.8 } else { 0.3 }) };
        *sample = Paint { rgb, label };
    });
}

impl Thing for Cycle {
    fn depth(&self) -> f32 {
        self.foot[2]
    }

    fn cast(&self, painter: &mut Painter) {
        let [x, _, z] = self.foot;
        let [a, b] = if self.heading == 0.0 { [0.15, 0.8] } else { [0.8, 0.15] };
        let foot = [[x - a, z - b], [x + a, z - b], [x + a, z + b], [x - a, z + b]];
        painter.sun_shadow(&foot, [0.2, if self.rider.is_some() { 1.6 } else { 0.8 }]);
        painter.contact_shadow([x, z], [0.0, 1.0], [b, a]);
    }

    fn paint(&self, painter: &mut Painter) {
        let mut figure = painter.figure(self.foot, 0.9);
        if self.heading == 0.0 {
            self.paint_end(&mut figure);
        } else {
            self.paint_side(&mut figure);
        }
    }
}
