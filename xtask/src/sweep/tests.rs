use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use xshell::{Shell, TempDir, cmd};

use super::grid::Grid;
use super::run::{self, State};
use super::{Sweep, changed};

/// Stands for the program: trains an epoch a call, as many as a recipe of two has, and notes each call. A seed of 9 fails, one of 8 is
/// stopped by a signal after its first epoch.
const PROGRAM: &str = r#"#!/bin/sh
set -e
folder=$(dirname "$0")
echo "$*" >> "$folder/calls"
case $1 in
train)
    for word in "$@"; do case $previous in --run) run=$word;; esac; previous=$word; done
    case $* in
    *--resume*) epochs=2;;
    *)
        mkdir -p "$run/checkpoints/last" "$run/checkpoints/best"
        seed=$(echo "$*" | sed 's/.*seed=\([0-9]*\).*/\1/')
        [ "$seed" != 9 ] || exit 1
        sed "s/^seed = .*/seed = $seed/" "$folder/recipe.toml" > "$run/config.toml"
        epochs=2
        [ "$seed" != 8 ] || epochs=1
        ;;
    esac
    echo "{\"epochs\":$epochs,\"best\":{\"score\":\"0.5\",\"epoch\":$epochs}}" > "$run/checkpoints/last/progress.json"
    cp "$run/checkpoints/last/progress.json" "$run/checkpoints/best/progress.json"
    echo '{"epoch":1,"train_seconds":60,"evaluation_seconds":30}' >> "$run/times.jsonl"
    [ $epochs = 2 ] || exit 130
    ;;
evaluate)
    mkdir -p "$2/evaluation/$4"
    echo '{"checkpoint":"best","epoch":2,"pixel_accuracy":0.5,"mean_iou":null}' > "$2/evaluation/$4/scores.json"
    ;;
esac
"#;

struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        let shell = Shell::new().unwrap();
        let lab = Self { folder: shell.create_temp_dir().unwrap() };
        shell.write_file(lab.path("recipe.toml"), "seed = 0\nepochs = 2\n").unwrap();
        // Another process writes the program. If this one did, a child that another test starts meanwhile would hold it open for
        // writing until it becomes its own program, and a file that is open for writing cannot be run ("text file busy").
        let (text, program) = (lab.path("program.sh"), lab.path("program"));
        shell.write_file(&text, PROGRAM).unwrap();
        cmd!(shell, "install -m 755 {text} {program}").quiet().run().unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn grid(&self, seeds: &str, settings: &str) -> Grid {
        let recipe = self.path("recipe.toml");
        let text = format!(
            "name = \"g\"\nseeds = {seeds}\nsettings = {settings}\n[[run]]\nname = \"a\"\nrecipe = \"{}\"\n",
            recipe.display()
        );
        Grid::parse(&text, "g.toml").unwrap()
    }

    /// Sweeps, and tells the calls of the program that this took.
    fn sweep(&self, grid: &Grid) -> (ExitCode, Vec<String>) {
        let sweep = Sweep {
            grid: PathBuf::new(),
            data: Some("pairs".to_owned()),
            split: "val".to_owned(),
            device: None,
            runs: self.path("runs"),
            allow_changes: false,
            dry_run: false,
        };
        let _ = fs::remove_file(self.path("calls"));
        let runs = run::all(grid, &self.path("runs/g")).unwrap();
        let code = sweep.sweep(&self.path("program"), grid, &runs).unwrap();
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let runs = format!("{}/", self.path("runs/g").display());
        (code, calls.lines().map(|call| call.replace(&runs, "").replace(self.path("").to_str().unwrap(), "")).collect())
    }

    fn table(&self) -> String {
        fs::read_to_string(self.path("runs/g/table.md")).unwrap()
    }

    fn states(&self, grid: &Grid) -> Vec<State> {
        run::all(grid, &self.path("runs/g")).unwrap().iter().map(|run| run.state().unwrap()).collect()
    }
}

/// `ExitCode` cannot be compared.
fn is(code: ExitCode, expected: u8) -> bool {
    format!("{code:?}") == format!("{:?}", ExitCode::from(expected))
}

#[cfg(unix)]
#[test]
fn every_run_is_trained_and_scored_once() {
    let lab = Lab::new();
    let grid = lab.grid("[0, 1]", "[]");
    assert_eq!(lab.states(&grid), [State::New, State::New]);
    let (code, calls) = lab.sweep(&grid);
    assert!(is(code, 0));
    assert_eq!(
        calls,
        [
            "train recipe.toml --set=seed=0 --run a-seed-0 --data pairs",
            "evaluate a-seed-0 --split val --data pairs",
            "train recipe.toml --set=seed=1 --run a-seed-1 --data pairs",
            "evaluate a-seed-1 --split val --data pairs",
        ]
    );
    assert_eq!(lab.states(&grid), [State::Trained, State::Trained]);
    let table = lab.table();
    assert!(
        table.contains("50.00 ± 0.00 %") && table.contains("1.00 ± 0.00") && table.contains("1.50 ± 0.00"),
        "{table}"
    );
    assert!(lab.path("runs/g/table.json").is_file());

    let (code, calls) = lab.sweep(&grid);
    assert!(is(code, 0) && calls.is_empty(), "{calls:?}");
    assert_eq!(lab.table(), table);
    fs::remove_dir_all(lab.path("runs/g/a-seed-1/evaluation")).unwrap();
    assert_eq!(lab.sweep(&grid).1, ["evaluate a-seed-1 --split val --data pairs"]);
}

#[cfg(unix)]
#[test]
fn a_stopped_run_stops_the_sweep_and_goes_on_with_it() {
    let lab = Lab::new();
    let grid = lab.grid("[8, 1]", "[]");
    let (code, calls) = lab.sweep(&grid);
    assert!(is(code, 130));
    assert_eq!(calls, ["train recipe.toml --set=seed=8 --run a-seed-8 --data pairs"]);
    assert_eq!(lab.states(&grid), [State::Begun { epochs: 1 }, State::New]);
    let (code, calls) = lab.sweep(&grid);
    assert!(is(code, 0));
    assert_eq!(calls[0], "train a-seed-8/config.toml --resume --run a-seed-8 --data pairs");
    assert_eq!(calls.len(), 4);
}

#[cfg(unix)]
#[test]
fn a_failed_run_is_told_and_the_others_go_on() {
    let lab = Lab::new();
    let (code, calls) = lab.sweep(&lab.grid("[9, 1]", "[]"));
    assert!(is(code, 1));
    assert_eq!(calls.len(), 3);
    assert!(lab.table().contains("| 1 of 2 |"), "{}", lab.table());
}

#[cfg(unix)]
#[test]
fn a_run_of_other_settings_is_refused_by_name() {
    let lab = Lab::new();
    lab.sweep(&lab.grid("[1]", "[]"));
    let grid = lab.grid("[1]", "[\"epochs=3\"]");
    let differences = vec!["epochs was 2 and is to be 3".to_owned()];
    let told = changed(&differences);
    assert_eq!(lab.states(&grid), [State::Changed { differences }]);
    assert_eq!(told, "was trained otherwise: epochs was 2 and is to be 3; name it otherwise, or remove its directory");
    let (code, calls) = lab.sweep(&grid);
    assert!(is(code, 1) && calls.is_empty(), "{calls:?}");
}

#[test]
fn scores_of_another_checkpoint_do_not_count() {
    let lab = Lab::new();
    let grid = lab.grid("[1]", "[]");
    let runs = run::all(&grid, &lab.path("runs/g")).unwrap();
    let write = |name: &str, text: &str| {
        let path = runs[0].directory.join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
        fs::write(path, text).unwrap();
    };
    let scored = || runs[0].is_scored("val").unwrap();
    write("checkpoints/best/progress.json", "{\"best\":{\"score\":\"0.5\",\"epoch\":7}}");
    assert!(!scored());
    for (scores, counts) in [
        ("{\"checkpoint\":\"best\",\"epoch\":7}", true),
        ("{\"checkpoint\":\"last\",\"epoch\":7}", false),
        ("{\"checkpoint\":\"best\",\"epoch\":6}", false),
    ] {
        write("evaluation/val/scores.json", scores);
        assert_eq!(scored(), counts, "{scores}");
    }
}
