//! A representative part of docs/faults.md; `cargo xtask test --slow` goes through all of it.

use mfpo_tests::faults;

#[test]
fn faults_end_as_the_table_says() {
    let rows = faults::run(|row| row.is_quick);
    assert!(rows.len() >= 8, "{} rows stand for the others", rows.len());
    faults::table::check_some(&rows);
}
