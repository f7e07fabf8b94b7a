/// The Cityscapes classes; the number is the class id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Label {
    Road = 0,
    Sidewalk = 1,
    Building = 2,
    Wall = 3,
    Fence = 4,
    Pole = 5,
    TrafficLight = 6,
    TrafficSign = 7,
    Vegetation = 8,
    Terrain = 9,
    Sky = 10,
    Person = 11,
    Rider = 12,
    Car = 13,
    Truck = 14,
    Bus = 15,
    Train = 16,
    Motorcycle = 17,
    Bicycle = 18,
    /// The bonnet of our own car, bins and other street furniture that Cityscapes does not evaluate.
    Void = 255,
}

impl Label {
    /// The class's colour in label maps: that of `data/palettes/cityscapes.toml`.
    pub(super) fn color(self) -> [u8; 3] {
        match self {
            Self::Road => [128, 64, 128],
            Self::Sidewalk => [244, 35, 232],
            Self::Building => [70, 70, 70],
            Self::Wall => [102, 102, 156],
            Self::Fence => [190, 153, 153],
            Self::Pole => [153, 153, 153],
            Self::TrafficLight => [250, 170, 30],
            Self::TrafficSign => [220, 220, 0],
            Self::Vegetation => [107, 142, 35],
            Self::Terrain => [152, 251, 152],
            Self::Sky => [70, 130, 180],
            Self::Person => [220, 20, 60],
            Self::Rider => [255, 0, 0],
            Self::Car => [0, 0, 142],
            Self::Truck => [0, 0, 70],
            Self::Bus => [0, 60, 100],
            Self::Train => [0, 80, 100],
            Self::Motorcycle => [0, 0, 230],
            Self::Bicycle => [119, 11, 32],
            Self::Void => [0, 0, 0],
        }
    }
}
