use super::*;

fn table(text: &str) -> Result<ClassTable, String> {
    ClassTable::from_toml(text, "table.toml").map_err(|error| error.to_string())
}

const PLAIN: &str = r#"name = "plain"
void = [1]
[[class]]
name = "road"
color = [128, 64, 128]
[[class]]
name = "unlabelled"
color = [0, 0, 0]
[[class]]
name = "sky"
color = [70, 130, 180]
"#;

#[test]
fn positions_are_mask_values_and_void_entries_have_no_class_id() {
    let plain = table(PLAIN).unwrap();
    assert_eq!((plain.name(), plain.len()), ("plain", 2));
    assert_eq!(plain.classes()[1], Class { name: "sky".into(), color: [70, 130, 180] });
    assert_eq!([0, 1, 2, 3, 1000].map(|value| plain.label_of_index(value)), [Some(0), Some(255), Some(1), None, None]);
    assert_eq!([0, 1, 2, 255].map(|label| plain.color_of(label)), [[128, 64, 128], [70, 130, 180], [0; 3], [0; 3]]);
}

#[test]
fn colors_decode_to_the_nearest_entry() {
    let plain = table(PLAIN).unwrap();
    assert_eq!([[120, 60, 120], [60, 140, 190], [10, 20, 5]].map(|color| plain.decode(color)), [0, 1, 255]);
    // A prediction is never void.
    assert_eq!([[120, 60, 120], [60, 140, 190], [10, 20, 5]].map(|color| plain.decode_evaluated(color)), [0, 1, 0]);
    // (64, 32, 64) lies halfway between road and void.
    assert_eq!(plain.decode([64, 32, 64]), 0);
    assert!((plain.distance([131, 60, 128]) - 5.0).abs() < 1e-12);
    let image = RgbImage::from_fn(2, 2, |x, y| image::Rgb(if x == y { [1, 2, 3] } else { [70, 130, 181] }));
    assert_eq!(plain.decode_image(&image), [255, 1, 1, 255]);
    assert_eq!(plain.decode_evaluated_image(&image), [0, 1, 1, 0]);
    assert_eq!(plain.paint(&[255, 1], 1, 2).unwrap().into_raw(), [0, 0, 0, 70, 130, 180]);
    assert!(plain.paint(&[255, 1], 2, 2).is_none());
}

#[test]
fn cityscapes_is_built_in() {
    let cityscapes = ClassTable::load("cityscapes").unwrap();
    let names: Vec<&str> = cityscapes.classes().iter().map(|class| class.name.as_str()).collect();
    let expected = "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,person,rider,car,\
                    truck,bus,train,motorcycle,bicycle";
    assert_eq!(names.join(","), expected);
    assert_eq!(cityscapes.entries.len(), 35);
    let labels = [0, 6, 7, 8, 9, 26, 33, 34].map(|id| cityscapes.label_of_index(id));
    assert_eq!(labels, [Some(255), Some(255), Some(0), Some(1), Some(255), Some(13), Some(18), None]);
    // Cars and licence plates have one colour, poles and groups of poles another.
    assert_eq!(
        [[0, 0, 142], [153, 153, 153], [0, 0, 0], [250, 170, 160]].map(|c| cityscapes.decode(c)),
        [13, 5, 255, 255]
    );
    for (label, class) in cityscapes.classes().iter().enumerate() {
        assert_eq!(
            (cityscapes.decode(class.color), cityscapes.decode_evaluated(class.color)),
            (label as u8, label as u8)
        );
    }
}

#[test]
fn camvid_is_built_in() {
    let camvid = ClassTable::load("camvid").unwrap();
    assert_eq!(camvid.len(), 11);
    assert_eq!([3, 10, 11, 12].map(|value| camvid.label_of_index(value)), [Some(3), Some(10), Some(255), None]);
    assert_eq!((camvid.decode([0, 0, 0]), camvid.decode([128, 64, 128])), (255, 3));
}

#[test]
fn tables_survive_being_written() {
    let odd = PLAIN.replace("road", "a \\\"quoted\\\"\\nname \\\\ ü");
    for table in [ClassTable::load("cityscapes"), ClassTable::load("camvid"), ClassTable::from_toml(&odd, "odd")] {
        let table = table.unwrap();
        let again = ClassTable::from_toml(&table.to_toml(), "again").unwrap();
        assert_eq!((again.name(), again.classes()), (table.name(), table.classes()));
        assert_eq!(again.label_of_index, table.label_of_index);
        assert_eq!(again.to_toml(), table.to_toml());
        assert_eq!(again.color_of(255), table.color_of(255));
    }
}

#[test]
fn entries_may_share_a_train_id() {
    let merged = table(
        "name = 'm'\n[[class]]\nname = 'road'\ncolor = [9, 9, 9]\nid = 4\ntrain_id = 0\n[[class]]\nname = 'marking'\n\
         color = [250, 250, 250]\nid = 9\ntrain_id = 0\n[[class]]\nname = 'rest'\ncolor = [9, 9, 9]\nid = 255\n",
    )
    .unwrap();
    assert_eq!(merged.len(), 1);
    assert_eq!((merged.decode([251, 250, 250]), merged.color_of(0)), (0, [9, 9, 9]));
    assert_eq!([4, 9, 255, 0].map(|id| merged.label_of_index(id)), [Some(0), Some(0), Some(255), None]);
}

#[test]
fn errors_name_origin_line_and_key() {
    let class = |extra: &str| format!("[[class]]\nname = 'a'\ncolor = [1, 2, 3]\n{extra}");
    let cases = [
        ("name = 'x'\n".to_owned(), "table.toml:1: name = 'x': missing field `class`"),
        ("name = 'x'\nclass = []\n".to_owned(), "table.toml:2: class: every entry is void"),
        (format!("name = 'x'\nvoid = [1]\n{}", class("")), "table.toml:2: void: 1 is not a position in 0..1"),
        (format!("name = 'x'\nvoid = [0]\n{}", class("")), "table.toml:3: class: every entry is void"),
        (format!("name = 'x'\n{}", class("colour = 1")), "table.toml:5: colour = 1: unknown field `colour`"),
        (format!("name = 'x'\n{}", class("id = 256")), "table.toml:2: class 0: id: 256 is not in -1..=255"),
        (format!("name = 'x'\n{}", class("train_id = 256")), "table.toml:2: class 0: train_id: 256 is not in -1..=255"),
        (format!("name = 'x'\n{}", class("train_id = 1")), "table.toml:2: class: train_id: 0 is missing, 1 is there"),
        (format!("name = 'x'\n{}{}", class("id = 1\n"), class("id = 1")), "table.toml:6: class 1: id: 1 is taken"),
        (format!("name = 'x'\n{}{}", class("id = 1\n"), class("")), "table.toml:6: class 1: id: missing"),
        (format!("name = 'x'\n{}{}", class(""), class("")), "table.toml:5: class 1: name: \"a\" is taken"),
        (
            format!("name = 'x'\n{}[[class]]\nname = 'b'\ncolor = [1, 2, 3]", class("")),
            "table.toml:5: class 1: color: [1, 2, 3] is taken by another class",
        ),
        (
            "name = 'x'\n[[class]]\nname = 'a'\ncolor = [1, 300, 3]".to_owned(),
            "table.toml:4: color = [1, 300, 3]: invalid value",
        ),
        (
            "name = 'x'\n[[class]]\nname = 'a'\ncolor = [1, 3]".to_owned(),
            "table.toml:4: color = [1, 3]: invalid length",
        ),
        ("name = 'x\n".to_owned(), "table.toml:1: name = 'x: "),
        (String::new(), "table.toml:1: the table: missing field"),
    ];
    for (text, expected) in cases {
        let error = table(&text).err().unwrap_or_else(|| panic!("accepted: {text}"));
        assert!(error.starts_with(expected), "{error}\ninstead of\n{expected}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let many = (0..257)
        .map(|i| format!("[[class]]\nname = '{i}'\ncolor = [0, {}, {}]\n", i / 256, i % 256))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(table(&format!("name = 'x'\n{many}")).unwrap_err(), "table.toml:2: class: 257 entries, at most 256 fit");
    let error = ClassTable::load("cityscape").unwrap_err().to_string();
    assert!(error.starts_with("cityscape: neither a built-in class table (cityscapes, camvid) nor a file"), "{error}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(name|void|class|\\[\\[|\\]\\]|color|id|train_id|=|[-0-9 ,\\[\\]]|'a'|\n){0,60}") {
        let _ = ClassTable::from_toml(&text, "any");
    }
}
