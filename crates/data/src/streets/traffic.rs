//! What moves in a street, or could: vehicles, riders, people.

use super::cycle::Cycle;
use super::person::Person;
use super::scene::Placing;
use super::street::{Crossing, END, Frontage, Lane};
use super::vehicle::Vehicle;
use crate::keyed::KeyedRng;

/// Half the width that a vehicle and a person take on the road, in metres.
const CAR: f32 = 1.3;
const BODY: f32 = 0.5;

impl Placing<'_> {
    /// What drives on our street and on the one that crosses it.
    pub(super) fn traffic(&mut self, rng: &mut KeyedRng) {
        let density = rng.between(0.15, 0.7);
        for lane in self.street.lanes.clone() {
            let is_ours = (lane.t - self.street.camera_t).abs() < 1.0;
            let mut s = rng.between(if is_ours { 9.0 } else { 5.0 }, 45.0);
            while s < END {
                let gap = rng.unit_f32();
                s += self.drive(rng, lane, s) + 2.0 + 34.0 * gap * gap / density;
            }
        }
        if let Some(crossing) = self.street.crossing {
            self.cross_traffic(rng, crossing);
        }
    }

    /// Puts something on a lane from s on; returns the length that it takes.
    fn drive(&mut self, rng: &mut KeyedRng, lane: Lane, s: f32) -> f32 {
        let kind = rng.below(100);
        let length: f32 = match kind {
            0..4 => 11.0,
            4..7 => 14.0,
            7..9 => 30.0,
            9..17 => 3.0,
            _ => 5.0,
        };
        let aside = if (9..17).contains(&kind) { 0.8 * lane.t.signum() } else { rng.between(-0.2, 0.2) };
        let middle = self.street.at(lane.t + aside, 0.0, s + length / 2.0);
        let forward = self.along(middle[2], lane.ahead);
        self.take(middle, [CAR, length / 2.0]);
        match kind {
            0..4 => self.add(Vehicle::truck(rng, middle, forward, self.lamps)),
            4..7 => self.add(Vehicle::bus(rng, middle, forward, self.lamps)),
            7..9 => self.add(Vehicle::tram(rng, middle, forward, self.lamps)),
            9..17 => self.add(Cycle::new(rng, middle, 0.0, lane.ahead, true, self.lamps)),
            _ => self.add(Vehicle::car(rng, middle, forward, self.lamps)),
        }
        length
    }

    fn cross_traffic(&mut self, rng: &mut KeyedRng, crossing: Crossing) {
        let [near, far] = crossing.s;
        for (share, heading) in [(0.27, -1.0), (0.73, 1.0)] {
            let middle = self.street.at(rng.between(-16.0, 16.0), 0.0, near + share * (far - near));
            if !rng.chance(0.5) || !self.take(middle, [2.5, CAR]) {
                continue;
            }
            if rng.chance(0.25) {
                self.add(Cycle::new(rng, middle, heading, false, true, self.lamps));
            } else {
                self.add(Vehicle::car(rng, middle, [heading, 0.0], self.lamps));
            }
        }
    }

    /// Cars along the kerbs, bicycles and motorcycles on the pavements.
    pub(super) fn parked(&mut self, rng: &mut KeyedRng) {
        let full = rng.between(0.15, 0.8);
        for side in 0..2 {
            let plan = self.street.sides[side].clone();
            let mut s = rng.between(1.0, 6.0);
            while plan.parking && s < END {
                if !self.street.crossed(side, s, 8.0) && rng.chance(f64::from(full)) {
                    let middle = self.beside(side, plan.kerb - 1.1, s);
                    let ahead = (side == 1) != rng.chance(0.08);
                    self.take(middle, [CAR, 2.6]);
                    self.add(Vehicle::car(rng, middle, self.along(s, ahead), 0.0));
                }
                s += rng.between(5.3, 6.6);
            }
            for _ in 0..rng.below(3) {
                let mut s = rng.between(5.0, 35.0);
                let out = if rng.chance(0.5) { plan.pavement - 0.4 } else { plan.kerb + 0.6 };
                for _ in 0..=rng.below(3) {
                    if plan.pavement > plan.strip && !self.street.crossed(side, s, 2.0) {
                        let heading = if rng.chance(0.5) { 1.0 } else { -1.0 };
                        let foot = self.beside(side, out, s);
                        self.add(Cycle::new(rng, foot, heading, false, false, 0.0));
                    }
                    s += 0.7;
                }
            }
        }
    }

    /// People on the pavements and on their way across the road.
    pub(super) fn people(&mut self, rng: &mut KeyedRng) {
        let busy = rng.unit_f32();
        for side in 0..2 {
            let plan = self.street.sides[side].clone();
            let width = plan.pavement - plan.strip;
            let groups = match plan.frontage {
                _ if width <= 0.0 => 0,
                Frontage::Row => 2 + (busy * 10.0) as usize,
                _ => (busy * 7.0) as usize,
            };
            for _ in 0..groups {
                let depth = rng.unit_f32();
                let s = 6.0 + 55.0 * depth * depth;
                let out = plan.strip + 0.4 + (width - 0.7).max(0.0) * rng.unit_f32();
                let heading = [0.0, 0.0, 0.0, 1.0, -1.0][rng.below(5)];
                for beside in 0..[1, 1, 2, 3][rng.below(4)] {
                    let foot = self.beside(side, out + 0.5 * beside as f32, s + rng.between(-0.3, 0.3));
                    self.add(Person::new(rng, foot, heading));
                }
            }
        }
        // Where there is a zebra they cross on it.
        let crossing_at = match self.street.crossing {
            Some(crossing) if crossing.zebra => rng.chance(0.75).then_some(crossing.s[0] - 2.6),
            _ => rng.chance(0.15).then(|| rng.between(12.0, 40.0)),
        };
        let Some(s) = crossing_at else { return };
        let kerbs = [-self.street.sides[0].kerb, self.street.sides[1].kerb];
        for _ in 0..=rng.below(4) {
            let heading = if rng.chance(0.5) { 1.0 } else { -1.0 };
            let foot = self.street.at(rng.between(kerbs[0], kerbs[1]), 0.0, s + rng.between(-1.0, 1.0));
            let rides = rng.chance(0.15);
            if !self.take(foot, if rides { [1.0, BODY] } else { [BODY, BODY] }) {
                continue;
            }
            if rides {
                self.add(Cycle::new(rng, foot, heading, false, true, self.lamps));
            } else {
                self.add(Person::new(rng, foot, heading));
            }
        }
    }
}
