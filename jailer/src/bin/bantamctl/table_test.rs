use super::*;

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let mut table = Table::new(["A", "Long"]);
    table.row(["x\x1by".into(), "1".into()]);
    assert_eq!(table.text(), "A    Long\nx?y  1\n");
}
