//! Painting things into the canvas where the camera sees them, in the light of the scene.

use super::camera::{Camera, Point, add, center, cross, direction, dot, scale, sub};
use super::canvas::{Canvas, Paint};
use super::label::Label;
use super::light::{Light, Surface, Tone};
use super::rgb::Rgb;
use super::street::Street;

/// Everything that things are painted with. Things are painted from back to front, each over what is behind it.
pub(super) struct Painter {
    pub(super) canvas: Canvas,
    pub(super) camera: Camera,
    pub(super) light: Light,
    pub(super) street: Street,
}

/// A thing that stands in the street.
pub(super) trait Thing {
    /// How far ahead it stands: of two things the farther one is painted first. Of a long thing, its far end.
    fn depth(&self) -> f32;

    /// Darkens the ground that the thing keeps light from.
    fn cast(&self, painter: &mut Painter);

    fn paint(&self, painter: &mut Painter);
}

/// The side of a polygon that can be seen.
#[derive(Clone, Copy)]
pub(super) enum Facing {
    Both,
    /// The side away from a point inside the solid.
    Away(Point),
}

impl Painter {
    /// The share of the sun that reaches a place.
    pub(super) fn sunlit(&self, point: Point) -> f32 {
        self.street.sunlit(point, self.light.sun)
    }

    /// A polygon of one surface throughout, in the same light everywhere.
    pub(super) fn flat(&mut self, corners: &[Point], facing: Facing, label: Label, surface: Surface, sunlit: f32) {
        let Some(normal) = self.seen_normal(corners, facing) else { return };
        let falling = self.light.falls_on(normal, sunlit);
        let rgb = self.light.veil(self.light.reflect(surface, falling), center(corners)[2].max(0.0));
        self.canvas.polygon(&self.camera.outline(corners), |sample, _, _| *sample = Paint { rgb, label });
    }

    /// A polygon with a texture: `surface(u, v)` is asked at u metres from the first corner towards the second and v metres
    /// to the side of the other corners. `None` leaves what is behind.
    pub(super) fn textured(
        &mut self,
        corners: &[Point],
        facing: Facing,
        label: Label,
        mut surface: impl FnMut(f32, f32) -> Option<Surface>,
    ) {
        let Some(normal) = self.seen_normal(corners, facing) else { return };
        let origin = corners[0];
        let along = direction(sub(corners[1], origin));
        let across = sub(center(corners), origin);
        let up = direction(sub(across, scale(along, dot(across, along))));
        let plane = self.camera.plane(origin, along, up);
        let Self { canvas, camera, light, street } = self;
        let sun = dot(normal, light.sun) > 0.0 && light.sun_rgb != Rgb::BLACK;
        canvas.polygon(&camera.outline(corners), |sample, x, y| {
            let (u, v, z) = plane.at(x, y);
            let Some(surface) = surface(u, v) else { return };
            let point = add(origin, add(scale(along, u), scale(up, v)));
            let sunlit = if sun { street.sunlit(point, light.sun) } else { 0.0 };
            let rgb = light.veil(light.reflect(surface, light.falls_on(normal, sunlit)), z);
            *sample = Paint { rgb: rgb.mix(sample.rgb, surface.clear), label };
        });
    }

    /// The normal of the side that the camera sees, if that side is to be seen.
    fn seen_normal(&self, corners: &[Point], facing: Facing) -> Option<Point> {
        let [a, b, c, ..] = corners else { return None };
        let normal = direction(cross(sub(*b, *a), sub(*c, *a)));
        let to_camera = dot(normal, sub(self.camera.position, *a));
        if let Facing::Away(inside) = facing
            && to_camera * dot(normal, sub(*a, inside)) <= 0.0
        {
            return None;
        }
        Some(scale(normal, to_camera.signum()))
    }

    /// Multiplies the ground inside a polygon on the plan (world x and z) by a colour.
    pub(super) fn shade_ground(&mut self, corners: &[[f32; 2]], share: Rgb) {
        let corners: Vec<Point> = corners.iter().map(|&[x, z]| [x, 0.0, z]).collect();
        self.canvas.polygon(&self.camera.outline(&corners), |sample, _, _| sample.rgb = sample.rgb * share);
    }

    /// The shadow that the sun throws of something convex whose outline on the ground is `foot` and which is `height` tall.
    pub(super) fn sun_shadow(&mut self, foot: &[[f32; 2]], height: [f32; 2]) {
        let sun = self.light.sun;
        let middle = foot.iter().fold([0.0; 2], |sum, p| [sum[0] + p[0], sum[1] + p[1]]);
        let n = foot.len().max(1) as f32;
        let lit = self.sunlit([middle[0] / n, height[0], middle[1] / n]);
        let share = self.shadow_share(lit);
        if share.mean() > 0.97 {
            return;
        }
        let thrown = |[x, z]: [f32; 2], y: f32| [x - sun[0] / sun[1] * y, z - sun[2] / sun[1] * y];
        let mut points: Vec<[f32; 2]> = foot.iter().flat_map(|&p| height.map(|y| thrown(p, y))).collect();
        self.shade_ground(&convex_hull(&mut points), share);
    }

    /// What is left of the ground's light where something stands between it and the sun.
    fn shadow_share(&self, lit: f32) -> Rgb {
        let (ambient, sun) = (self.light.ambient, self.light.sun_rgb * (self.light.sun[1] * lit));
        Rgb::new(ambient.r / (ambient.r + sun.r), ambient.g / (ambient.g + sun.g), ambient.b / (ambient.b + sun.b))
    }

    /// The darkness under something that stands close to the ground: a rectangle around `middle`, so many metres from it along
    /// `forward` and across, with soft edges.
    pub(super) fn contact_shadow(&mut self, middle: [f32; 2], forward: [f32; 2], [length, width]: [f32; 2]) {
        let ([fx, fz], [x, z]) = (forward, middle);
        let at = |a: f32, b: f32| [x + a * length * fx + b * width * fz, 0.0, z + a * length * fz - b * width * fx];
        let reach = 1.35;
        let corners = [at(-reach, -reach), at(reach, -reach), at(reach, reach), at(-reach, reach)];
        let plane = self.camera.plane([x, 0.0, z], [fx, 0.0, fz], [fz, 0.0, -fx]);
        self.canvas.polygon(&self.camera.outline(&corners), |sample, column, row| {
            let (u, v, _) = plane.at(column, row);
            let out = (u / length).abs().max((v / width).abs());
            let light = ((out - 0.7) / (reach - 0.7)).clamp(0.0, 1.0);
            sample.rgb = sample.rgb * (0.3 + 0.7 * light * (2.0 - light));
        });
    }

    /// A figure that stands upright at a place and faces us.
    pub(super) fn figure(&mut self, foot: Point, middle_height: f32) -> Figure<'_> {
        let sunlit = self.sunlit([foot[0], foot[1] + middle_height, foot[2]]);
        let tone = self.light.tone(sunlit, foot[2]);
        let origin = self.camera.project(foot);
        Figure { origin, scale: self.camera.scale(foot[2]), tone, canvas: &mut self.canvas }
    }
}

/// Something flat that stands upright and faces us, in metres: x to the right of its foot, y above it.
pub(super) struct Figure<'a> {
    pub(super) canvas: &'a mut Canvas,
    /// Where its foot appears, in samples.
    origin: [f32; 2],
    /// Samples per metre.
    pub(super) scale: f32,
    pub(super) tone: Tone,
}

impl Figure<'_> {
    /// Where a point of the figure appears, in samples.
    pub(super) fn sample(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.origin[0] + x * self.scale, self.origin[1] - y * self.scale]
    }

    /// A polygon, lit as if it were as round as it is wide.
    pub(super) fn polygon(&mut self, label: Label, albedo: Rgb, points: &[[f32; 2]]) {
        let points: Vec<[f32; 2]> = points.iter().map(|&point| self.sample(point)).collect();
        let left = points.iter().fold(f32::INFINITY, |left, p| left.min(p[0]));
        let right = points.iter().fold(f32::NEG_INFINITY, |right, p| right.max(p[0]));
        let (middle, half) = (f32::midpoint(left, right), ((right - left) / 2.0).max(1e-3));
        let tone = self.tone;
        self.canvas.polygon(&points, |sample, x, _| {
            *sample = Paint { rgb: tone.color(albedo, (x - middle) / half), label };
        });
    }

    /// A rectangle by its left lower and right upper corner.
    pub(super) fn rectangle(&mut self, label: Label, albedo: Rgb, low: [f32; 2], high: [f32; 2]) {
        self.polygon(label, albedo, &[low, [high[0], low[1]], high, [low[0], high[1]]]);
    }

    pub(super) fn ellipse(&mut self, label: Label, albedo: Rgb, middle: [f32; 2], radius: [f32; 2]) {
        let tone = self.tone;
        self.canvas.ellipse(self.sample(middle), radius.map(|r| r * self.scale), |sample, dx, _| {
            *sample = Paint { rgb: tone.color(albedo, dx), label };
        });
    }

    /// A straight limb between two points with its width at each.
    pub(super) fn limb(&mut self, label: Label, albedo: Rgb, from: [f32; 2], to: [f32; 2], width: [f32; 2]) {
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let length = (dx * dx + dy * dy).sqrt().max(1e-6);
        let side = |p: [f32; 2], w: f32| [p[0] - dy / length * w / 2.0, p[1] + dx / length * w / 2.0];
        let corners = [side(from, width[0]), side(to, width[1]), side(to, -width[1]), side(from, -width[0])];
        self.polygon(label, albedo, &corners);
    }

    /// A lamp: its own light, and a faint halo around it where `halo` is above 0.
    pub(super) fn lamp(&mut self, label: Label, rgb: Rgb, middle: [f32; 2], radius: f32, halo: f32) {
        let (tone, at) = (self.tone, self.sample(middle));
        if halo > 0.0 {
            let reach = radius * self.scale * 5.0;
            self.canvas.ellipse(at, [reach; 2], |sample, dx, dy| {
                let fade = (1.0 - dx * dx - dy * dy).max(0.0);
                sample.rgb = sample.rgb + tone.glow(rgb) * (halo * 0.12 * fade * fade);
            });
        }
        self.canvas.ellipse(at, [radius * self.scale; 2], |sample, _, _| {
            *sample = Paint { rgb: tone.glow(rgb), label };
        });
    }
}

/// The convex hull of points in a plane (Andrew's monotone chain).
fn convex_hull(points: &mut [[f32; 2]]) -> Vec<[f32; 2]> {
    points.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let half = |points: &mut dyn Iterator<Item = [f32; 2]>| {
        let mut hull: Vec<[f32; 2]> = Vec::new();
        for p in points {
            while let [.., a, b] = hull[..] {
                if (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0.0 {
                    break;
                }
                hull.pop();
            }
            hull.push(p);
        }
        hull.pop();
        hull
    };
    let mut hull = half(&mut points.iter().copied());
    hull.append(&mut half(&mut points.iter().rev().copied()));
    hull
}
