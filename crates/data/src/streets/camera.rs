//! The pinhole camera, and vectors. The world: x to the right, y up, z ahead, in metres; the camera stands above (x, 0, 0).

use crate::keyed::KeyedRng;

/// Nothing nearer than this is painted.
const NEAR: f32 = 0.4;

pub(super) type Point = [f32; 3];

pub(super) fn add(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn scale(a: Point, by: f32) -> Point {
    a.map(|v| v * by)
}

pub(super) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Point, b: Point) -> Point {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// The vector of length 1; (0, 0, 0) stays what it is.
pub(super) fn direction(a: Point) -> Point {
    scale(a, 1.0 / dot(a, a).sqrt().max(1e-9))
}

/// The point `share` of the way from a to b.
pub(super) fn between(a: Point, b: Point, share: f32) -> Point {
    add(a, scale(sub(b, a), share))
}

pub(super) fn center(points: &[Point]) -> Point {
    let sum = points.iter().fold([0.0; 3], |sum, &point| add(sum, point));
    scale(sum, 1.0 / points.len().max(1) as f32)
}

/// A camera that looks straight ahead; a shifted picture centre stands for its pitch and yaw, as in a view camera.
#[derive(Clone, Debug)]
pub(super) struct Camera {
    pub(super) position: Point,
    /// In samples of the canvas.
    focal: f32,
    /// The vanishing point of the z axis, in samples.
    vanishing: [f32; 2],
}

impl Camera {
    /// A camera for a picture of that many pixels: the same view at every size of the same shape.
    pub(super) fn new(rng: &mut KeyedRng, x: f32, height: usize, width: usize) -> Self {
        let (height, width) = (height as f32, width as f32);
        Self {
            position: [x, rng.between(1.2, 1.7), 0.0],
            focal: 2.0 * rng.between(0.75, 1.05) * width.max(1.3 * height),
            vanishing: [2.0 * width * rng.between(0.42, 0.58), 2.0 * height * rng.between(0.37, 0.48)],
        }
    }

    /// Samples per metre at distance z.
    pub(super) fn scale(&self, z: f32) -> f32 {
        self.focal / z.max(NEAR)
    }

    /// The row of the horizon, in samples.
    pub(super) fn horizon(&self) -> f32 {
        self.vanishing[1]
    }

    /// The ray through a sample: (x, y, 1) metres for every metre ahead.
    pub(super) fn ray(&self, x: f32, y: f32) -> Point {
        [(x - self.vanishing[0]) / self.focal, (self.vanishing[1] - y) / self.focal, 1.0]
    }

    /// Where a point appears, in samples; points nearer than [`NEAR`] are taken to lie there.
    pub(super) fn project(&self, point: Point) -> [f32; 2] {
        let [x, y, z] = sub(point, self.position);
        let scale = self.scale(z);
        [self.vanishing[0] + x * scale, self.vanishing[1] - y * scale]
    }

    /// The outline of a polygon in samples: what lies nearer than [`NEAR`] is cut off.
    pub(super) fn outline(&self, corners: &[Point]) -> Vec<[f32; 2]> {
        let mut outline = Vec::with_capacity(corners.len() + 1);
        for (i, &a) in corners.iter().enumerate() {
            let b = corners[(i + 1) % corners.len()];
            if a[2] >= NEAR {
                outline.push(self.project(a));
            }
            if (a[2] >= NEAR) != (b[2] >= NEAR) {
                let mut cut = between(a, b, (NEAR - a[2]) / (b[2] - a[2]));
                cut[2] = NEAR;
                outline.push(self.project(cut));
            }
        }
        outline
    }

    /// The plane through a point along two unit vectors at right angles.
    pub(super) fn plane(&self, origin: Point, along: Point, up: Point) -> Plane {
        let normal = cross(along, up);
        let from_origin = sub(self.position, origin);
        let per_sample = |axis: Point| {
            let (x, y) = (axis[0] / self.focal, -axis[1] / self.focal);
            [x, y, axis[2] - x * self.vanishing[0] - y * self.vanishing[1]]
        };
        Plane {
            distance: -dot(normal, from_origin),
            normal: per_sample(normal),
            axes: [along, up].map(|axis| (dot(axis, from_origin), per_sample(axis))),
        }
    }
}

/// From samples to places on a plane.
pub(super) struct Plane {
    distance: f32,
    normal: [f32; 3],
    axes: [(f32, [f32; 3]); 2],
}

impl Plane {
    /// The coordinates on the plane of what sample (x, y) shows, and its z.
    pub(super) fn at(&self, x: f32, y: f32) -> (f32, f32, f32) {
        let along = |[a, b, c]: [f32; 3]| a * x + b * y + c;
        let z = self.distance / along(self.normal);
        let [u, v] = self.axes.map(|(start, per_sample)| start + z * along(per_sample));
        (u, v, z)
    }
}
