use super::*;

#[test]
fn a_recorded_directory_that_is_no_control_group_stays() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    let made = Made {
        cgroups: vec![victim.clone(), directory.path().join("absent")],
        ..Made::default()
    };
    remove_recorded(&made, &[]).unwrap();
    assert!(victim.exists());
}
