use super::*;
use crate::scratch::Scratch;
use crate::usage::Usage;

#[test]
fn all_that_was_made_is_removed() {
    let scratch = Scratch::new("workdir-removed");
    let path = scratch.path().join("data");
    let mut dir = WorkDir::create(Some(&path), false).expect("made");
    let sub = dir.subdir("arm").expect("made");
    fs::write(sub.join("file"), "x").expect("written");
    drop(dir);
    assert!(!path.exists());
}

#[test]
fn all_that_was_made_is_removed_on_panic() {
    let scratch = Scratch::new("workdir-panic");
    let path = scratch.path().join("data");
    let ended = std::panic::catch_unwind(|| {
        let mut dir = WorkDir::create(Some(&path), false).expect("made");
        dir.subdir("arm").expect("made");
        panic!("on purpose");
    });
    assert!(ended.is_err());
    assert!(!path.exists());
}

#[test]
fn an_empty_directory_of_the_user_stays() {
    let scratch = Scratch::new("workdir-stays");
    drop(WorkDir::create(Some(scratch.path()), false).expect("taken"));
    assert!(scratch.path().is_dir());
    assert!(is_empty(scratch.path()).expect("readable"));
}

#[test]
fn a_directory_that_holds_something_else_is_refused_and_untouched() {
    let scratch = Scratch::new("workdir-foreign");
    let file = scratch.path().join("thesis.txt");
    fs::write(&file, "years of work").expect("written");
    let error = WorkDir::create(Some(scratch.path()), false).expect_err("not ours");
    assert!(error.is::<Usage>(), "{error}");
    assert_eq!(fs::read_dir(scratch.path()).expect("readable").count(), 1);
}

#[test]
fn a_file_that_appears_meanwhile_survives() {
    let scratch = Scratch::new("workdir-meanwhile");
    let path = scratch.path().join("data");
    let mut dir = WorkDir::create(Some(&path), false).expect("made");
    dir.subdir("arm").expect("made");
    fs::write(path.join("note.txt"), "mine").expect("written");
    drop(dir);
    let names: Vec<_> = fs::read_dir(&path).expect("left in place").collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read(path.join("note.txt")).expect("still there"), b"mine");
}

#[test]
fn leftovers_of_a_killed_run_are_cleared_but_only_the_named_ones() {
    let scratch = Scratch::new("workdir-leftovers");
    let path = scratch.path();
    fs::write(path.join(MARKER), format!("{FIRST_LINE}\narm\n../outside\n")).expect("written");
    fs::create_dir(path.join("arm")).expect("made");
    fs::create_dir(path.join("other")).expect("made");
    drop(WorkDir::create(Some(path), false).expect("reused"));
    assert!(!path.join("arm").exists());
    assert!(path.join("other").exists());
}

#[test]
fn a_kept_run_is_never_deleted_by_the_next() {
    let scratch = Scratch::new("workdir-kept");
    let path = scratch.path().join("data");
    let mut dir = WorkDir::create(Some(&path), true).expect("made");
    dir.subdir("arm").expect("made");
    drop(dir);
    for keep in [true, false] {
        let error = WorkDir::create(Some(&path), keep).expect_err("kept");
        assert!(error.is::<Usage>(), "{error}");
    }
    assert!(path.join("arm").exists());
}

#[test]
fn a_foreign_file_of_the_markers_name_is_refused_and_untouched() {
    let scratch = Scratch::new("workdir-marker");
    let file = scratch.path().join(MARKER);
    fs::write(&file, "something else").expect("written");
    assert!(WorkDir::create(Some(scratch.path()), false).is_err());
    assert_eq!(fs::read(&file).expect("still there"), b"something else");
}

#[test]
fn a_run_killed_before_its_marker_was_written_is_in_nobodys_way() {
    let scratch = Scratch::new("workdir-empty-marker");
    let file = scratch.path().join(MARKER);
    fs::write(&file, "").expect("written");
    fs::write(scratch.path().join("note.txt"), b"mine").expect("written");
    assert!(WorkDir::create(Some(scratch.path()), false).is_err(), "it holds something else");
    assert!(file.exists());
    fs::remove_file(scratch.path().join("note.txt")).expect("removed");
    drop(WorkDir::create(Some(scratch.path()), false).expect("reused"));
    assert!(!file.exists(), "removed as its own");
}

#[test]
fn a_marker_always_names_all_that_is_there() {
    let scratch = Scratch::new("workdir-names");
    let path = scratch.path().join("data");
    let mut dir = WorkDir::create(Some(&path), false).expect("made");
    dir.subdir("first-of-two").expect("made");
    dir.subdir("second").expect("made");
    dir.remove_subdir("first-of-two").expect("removed");
    let text = fs::read_to_string(path.join(MARKER)).expect("there");
    assert_eq!(text, format!("{FIRST_LINE}\nsecond\n"));
}

#[test]
fn two_runs_never_share_a_directory() {
    let scratch = Scratch::new("workdir-shared");
    let path = scratch.path().join("data");
    let _first = WorkDir::create(Some(&path), false).expect("made");
    let error = WorkDir::create(Some(&path), false).expect_err("in use");
    assert!(error.to_string().contains("another ringmain-bench"), "{error}");
}

#[test]
fn a_path_that_is_a_file_is_a_usage_error() {
    let scratch = Scratch::new("workdir-file");
    let file = scratch.path().join("file");
    fs::write(&file, "x").expect("written");
    for path in [file.clone(), file.join("below"), scratch.path().join("no/parent")] {
        let error = WorkDir::create(Some(&path), false).expect_err("no directory");
        assert!(error.is::<Usage>(), "{error}");
    }
}

#[test]
fn missing_space_is_said_with_what_is_needed() {
    let scratch = Scratch::new("workdir-space");
    let dir = WorkDir::create(Some(&scratch.path().join("data")), false).expect("made");
    dir.need_space(1).expect("a byte is free");
    let error = dir.need_space(u64::MAX / 2).expect_err("no disk is that large");
    assert!(error.to_string().contains("MiB are needed"), "{error}");
}
