//! What is put along a street: trees, hedges, walls, fences, posts.

use super::camera::Point;
use super::painter::Thing;
use super::panel::{Panel, PanelKind};
use super::plant::{Hedge, Plant, Season};
use super::post::{Post, PostKind};
use super::rgb::Rgb;
use super::scene::Placing;
use super::sign::Face;
use super::street::{END, Frontage};
use crate::keyed::KeyedRng;

impl Placing<'_> {
    /// Trees, bushes and hedges.
    pub(super) fn plants(&mut self, rng: &mut KeyedRng) {
        let season = Season::new(rng);
        for side in 0..2 {
            let plan = self.street.sides[side].clone();
            self.avenue(rng, &season, side);
            let (trees, bushes, reach) = match plan.frontage {
                Frontage::Row => (4, 0, 0.0),
                Frontage::Houses => (16, 12, plan.front - plan.pavement),
                Frontage::Park => (40, 16, 30.0),
                Frontage::Field => (12, 10, 45.0),
                Frontage::Wall => (16, 0, 14.0),
            };
            for i in 0..trees + bushes {
                let depth = rng.unit_f32();
                let s = 5.0 + (END - 5.0) * depth * depth.sqrt();
                let is_behind = plan.frontage == Frontage::Row || plan.frontage == Frontage::Houses && i % 2 == 0;
                let in_front = plan.pavement + 1.2 + reach * rng.unit_f32();
                let out = if is_behind { plan.front + rng.between(16.0, 26.0) } else { in_front };
                if self.street.crossed(side, s, 3.0) {
                    continue;
                }
                let foot = self.beside(side, out, s);
                if i < trees {
                    let tall = rng.between(5.0, 14.0);
                    self.add(Plant::tree(rng, &season, foot, tall));
                } else {
                    self.add(Plant::bush(rng, &season, foot));
                }
            }
            let hedged = match plan.frontage {
                Frontage::Houses => rng.chance(0.35),
                Frontage::Park => rng.chance(0.3),
                Frontage::Field => rng.chance(0.2),
                Frontage::Row | Frontage::Wall => false,
            };
            if hedged {
                let (leaves, height) = (Hedge::leaves(rng, &season), rng.between(0.8, 2.0));
                self.panels(side, plan.pavement + 0.4, |things, ends| {
                    things.push(Box::new(Hedge { ends, height, leaves }));
                });
            }
        }
    }

    /// Trees at equal distances, in the strip along the kerb or at the pavement's edge.
    fn avenue(&mut self, rng: &mut KeyedRng, season: &Season, side: usize) {
        let plan = self.street.sides[side].clone();
        let planted = plan.strip > plan.kerb;
        if !rng.chance(if planted { 0.8 } else { 0.4 }) || !planted && plan.frontage != Frontage::Row {
            return;
        }
        let out = if planted { f32::midpoint(plan.kerb, plan.strip) } else { plan.pavement - 0.7 };
        let (every, tall) = (rng.between(7.0, 14.0), rng.between(6.0, 12.0));
        let mut s = rng.between(6.0, 14.0);
        while s < END {
            if !self.street.crossed(side, s, 4.0) && rng.chance(0.9) {
                let foot = self.beside(side, out, s);
                self.add(Plant::street_tree(rng, season, foot, tall));
            }
            s += every;
        }
    }

    /// Calls `put` for pieces of a line along the street; nearer ones are shorter, so that painting by depth stays right.
    fn panels(&mut self, side: usize, out: f32, mut put: impl FnMut(&mut Vec<Box<dyn Thing>>, [Point; 2])) {
        let mut s = 1.0;
        while s < END {
            let next = s + 1.5 + s * 0.06;
            if !self.street.crossed(side, s, 3.0) && !self.street.crossed(side, next, 3.0) {
                let ends = [self.beside(side, out, s), self.beside(side, out, next)];
                put(&mut self.things, ends);
            }
            s = next;
        }
    }

    /// Walls, fences and rails along the pavements' outer edges.
    pub(super) fn edges(&mut self, rng: &mut KeyedRng) {
        for side in 0..2 {
            let plan = self.street.sides[side].clone();
            let kind = match plan.frontage {
                Frontage::Row => None,
                Frontage::Wall => Some(PanelKind::Wall),
                Frontage::Houses => {
                    [Some(PanelKind::Boards), Some(PanelKind::Bars), Some(PanelKind::Wall), None][rng.below(4)]
                }
                Frontage::Park => [Some(PanelKind::Bars), Some(PanelKind::Boards), None, None][rng.below(4)],
                Frontage::Field => [Some(PanelKind::Rail), Some(PanelKind::Bars), None][rng.below(3)],
            };
            let Some(kind) = kind else { continue };
            let height = match (kind, plan.frontage) {
                (PanelKind::Wall, Frontage::Wall) => rng.between(1.8, 4.5),
                (PanelKind::Wall, _) => rng.between(0.7, 1.3),
                (PanelKind::Rail, _) => 0.75,
                _ => rng.between(0.9, 1.8),
            };
            let color = kind.color(rng);
            self.panels(side, plan.pavement + 0.15, |things, ends| {
                things.push(Box::new(Panel { ends, height, kind, color }));
            });
        }
    }

    /// Lamp posts, signs, bollards, bins, traffic lights.
    pub(super) fn posts(&mut self, rng: &mut KeyedRng) {
        let metal = Post::metal(rng);
        let (every, height) = (rng.between(18.0, 32.0), rng.between(5.0, 9.0));
        let has_bollards = rng.chance(0.2);
        for (side, has_lamps) in [(0, rng.chance(0.5)), (1, rng.chance(0.7))] {
            let plan = self.street.sides[side].clone();
            let out = plan.kerb + 0.45;
            let mut s = rng.between(8.0, 8.0 + every);
            while has_lamps && s < END {
                self.post(metal, side, out, s, PostKind::Lamp { height, lit: self.lamps });
                s += every;
            }
            for _ in 0..rng.below(3) {
                let (s, height) = (rng.between(8.0, 70.0), rng.between(5.0, 9.0));
                self.post(metal, side, out + 0.2, s, PostKind::Bare { height });
            }
            for _ in 0..rng.below(4) {
                let s = rng.between(7.0, 60.0);
                let second = rng.chance(0.3).then(|| Face::drawn(rng));
                let kind = PostKind::Sign { height: rng.between(2.4, 3.3), face: Face::drawn(rng), second };
                self.post(metal, side, out + rng.between(0.0, 0.4), s, kind);
            }
            if rng.chance(0.4) {
                self.post(metal, side, plan.pavement - 0.4, rng.between(6.0, 30.0), PostKind::Bin);
            }
            if has_bollards && !plan.parking {
                (0..14).for_each(|i| self.post(metal, side, plan.kerb + 0.3, 5.0 + 2.4 * i as f32, PostKind::Bollard));
            }
        }
        if let Some(crossing) = self.street.crossing.filter(|_| rng.chance(0.75)) {
            let phase = [0, 0, 1, 2, 2][rng.below(5)];
            let arm = if rng.chance(0.5) { rng.between(2.5, 4.5) } else { 0.0 };
            for (side, arm) in [(0, 0.0), (1, arm)] {
                let out = self.street.sides[side].kerb + 0.5;
                for s in [crossing.s[0] - 0.8, crossing.s[1] + 0.8] {
                    self.post(metal, side, out, s, PostKind::Light { phase, arm });
                }
            }
        }
    }

    fn post(&mut self, metal: Rgb, side: usize, out: f32, s: f32, kind: PostKind) {
        if !self.street.crossed(side, s, 0.3) {
            let foot = self.beside(side, out, s);
            self.add(Post { foot, kind, metal, toward_road: -self.street.sides[side].sign });
        }
    }
}
