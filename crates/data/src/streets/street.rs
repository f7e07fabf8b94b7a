//! The plan of a street, in metres: s ahead of us, t to the right of the road's axis.

use super::camera::Point;
use crate::keyed::KeyedRng;

/// How far ahead things stand; beyond is the backdrop.
pub(super) const END: f32 = 150.0;

/// Metres of s in one cell of a skyline.
const CELL: f32 = 2.0;
/// Where a skyline begins.
const BEGIN: f32 = -20.0;

/// What lines one side of a street.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frontage {
    /// Houses wall to wall.
    Row,
    /// Houses in gardens.
    Houses,
    /// Trees and grass.
    Park,
    /// Open land.
    Field,
    /// A long wall, and what looks over it.
    Wall,
}

/// One direction of traffic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// Its middle.
    pub(super) t: f32,
    /// Whether it is driven the way that we look.
    pub(super) ahead: bool,
}

/// One side of a street; the distances are from the road's axis, growing outwards.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// 1 on the right, -1 on the left: t is `sign` x distance.
    pub(super) sign: f32,
    pub(super) frontage: Frontage,
    /// Whether cars may stand along the kerb.
    pub(super) parking: bool,
    /// Where the road ends.
    pub(super) kerb: f32,
    /// Where a strip of grass and trees ends that begins at the kerb; the kerb where there is none.
    pub(super) strip: f32,
    /// Where the pavement ends that begins there.
    pub(super) pavement: f32,
    /// Where buildings begin.
    pub(super) front: f32,
    /// The heights of the buildings at `front`, by cells of s.
    skyline: Vec<f32>,
}

/// A street that crosses ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crossing {
    /// Its nearer and farther kerb.
    pub(super) s: [f32; 2],
    /// Whether it goes on to the left and to the right.
    pub(super) open: [bool; 2],
    pub(super) zebra: bool,
}

/// The plan of a street.
#[derive(Clone, Debug)]
pub(super) struct Street {
    bend: f32,
    pub(super) lane_width: f32,
    pub(super) lanes: Vec<Lane>,
    /// Left, right.
    pub(super) sides: [Side; 2],
    pub(super) crossing: Option<Crossing>,
    /// Where the camera drives.
    pub(super) camera_t: f32,
}

impl Street {
    pub(super) fn new(rng: &mut KeyedRng) -> Self {
        let lane_width = rng.between(2.9, 3.6);
        let ahead = [1, 1, 1, 1, 2, 2, 2, 3][rng.below(8)];
        let back = if rng.chance(0.18) { 0 } else { ahead.min(2) };
        let lane = |i: usize, ahead: bool| {
            let t = (i as f32 + 0.5) * lane_width;
            Lane { t: if ahead { t } else { -t }, ahead }
        };
        let lanes: Vec<Lane> = (0..ahead).map(|i| lane(i, true)).chain((0..back).map(|i| lane(i, false))).collect();
        let ours = rng.below(ahead);
        let left = Self::frontage(rng);
        let right = if rng.chance(0.5) { left } else { Self::frontage(rng) };
        let side = |rng: &mut KeyedRng, sign: f32, frontage, lanes: usize| {
            Side::new(rng, sign, frontage, lanes as f32 * lane_width)
        };
        let sides = [side(rng, -1.0, left, back), side(rng, 1.0, right, ahead)];
        let crossing = rng.chance(0.4).then(|| {
            let near = rng.between(11.0, 42.0);
            let open = [[true, true], [true, false], [false, true]][rng.below(3)];
            Crossing { s: [near, near + rng.between(7.0, 12.0)], open, zebra: rng.chance(0.75) }
        });
        let bend = if rng.chance(0.5) { rng.between(-1.0, 1.0) / 260.0 } else { rng.between(-1.0, 1.0) / 2000.0 };
        let camera_t = lanes[ours].t + rng.between(-0.4, 0.4);
        Self { bend, lane_width, lanes, sides, crossing, camera_t }
    }

    fn frontage(rng: &mut KeyedRng) -> Frontage {
        match rng.below(100) {
            0..50 => Frontage::Row,
            50..68 => Frontage::Houses,
            68..82 => Frontage::Park,
            82..91 => Frontage::Field,
            _ => Frontage::Wall,
        }
    }

    /// The world's coordinates of a place on the plan.
    pub(super) fn at(&self, t: f32, y: f32, s: f32) -> Point {
        [t + self.shift(s), y, s]
    }

    /// How far the road's axis lies to the right of where it is under us.
    pub(super) fn shift(&self, s: f32) -> f32 {
        let near = s.min(END);
        self.bend * near * (s - 0.5 * near)
    }

    /// How many metres the road goes to the right with every metre ahead.
    pub(super) fn slope(&self, s: f32) -> f32 {
        self.bend * s.min(END)
    }

    /// Whether the crossing street goes through at s on that side.
    pub(super) fn crossed(&self, side: usize, s: f32, margin: f32) -> bool {
        self.crossing.is_some_and(|c| c.open[side] && s > c.s[0] - margin && s < c.s[1] + margin)
    }

    /// The share of the sun that buildings let through to a place: 0 or 1 but for a soft edge.
    pub(super) fn sunlit(&self, point: Point, sun: Point) -> f32 {
        let [x, y, z] = point;
        let side = &self.sides[usize::from(sun[0] > 0.0)];
        let t = x - self.shift(z);
        let way = (side.sign * side.front - t) / sun[0];
        if way <= 0.0 {
            return 1.0;
        }
        let clear = y + way * sun[1] - side.height(z + way * sun[2]);
        (0.5 + clear * 2.0).clamp(0.0, 1.0)
    }
}

impl Side {
    fn new(rng: &mut KeyedRng, sign: f32, frontage: Frontage, lanes: f32) -> Self {
        let in_town = matches!(frontage, Frontage::Row | Frontage::Houses | Frontage::Wall);
        let parking = rng.chance(if in_town { 0.6 } else { 0.3 });
        let gutter = if parking { rng.between(2.0, 2.4) } else { rng.between(0.25, 0.7) };
        let kerb = lanes + gutter;
        let planted = match frontage {
            Frontage::Row => rng.chance(0.25),
            Frontage::Field => rng.chance(0.6),
            _ => rng.chance(0.35),
        };
        let strip = kerb + if planted { rng.between(1.0, 2.2) } else { 0.0 };
        let width = match frontage {
            Frontage::Row => rng.between(2.6, 6.5),
            Frontage::Field if rng.chance(0.5) => 0.0,
            _ => rng.between(2.0, 4.2),
        };
        let pavement = strip + width;
        let yard = match frontage {
            Frontage::Row => [0.0, 0.0, 0.0, 1.5][rng.below(4)],
            Frontage::Houses => rng.between(3.0, 9.0),
            Frontage::Park => rng.between(24.0, 50.0),
            Frontage::Field => rng.between(40.0, 90.0),
            Frontage::Wall => rng.between(4.0, 12.0),
        };
        Self { sign, frontage, parking, kerb, strip, pavement, front: pavement + yard, skyline: Vec::new() }
    }

    /// Notes that a building of that height stands from one s to another.
    pub(super) fn rise(&mut self, s: [f32; 2], height: f32) {
        let cell = |s: f32| ((s - BEGIN) / CELL).max(0.0) as usize;
        let (from, to) = (cell(s[0]), cell(s[1]));
        if self.skyline.len() <= to {
            self.skyline.resize(to + 1, 0.0);
        }
        for low in &mut self.skyline[from..=to] {
            *low = low.max(height);
        }
    }

    fn height(&self, s: f32) -> f32 {
        let cell = (s - BEGIN) / CELL;
        if cell < 0.0 { 0.0 } else { self.skyline.get(cell as usize).copied().unwrap_or(0.0) }
    }
}
