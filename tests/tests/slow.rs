//! Laws of the whole system that take minutes: `cargo xtask test --slow`.

use mfpo_tests::faults;

#[test]
fn every_fault_ends_as_the_table_says() {
    let rows = faults::run(|_| true);
    faults::table::check_all(&rows);
}
