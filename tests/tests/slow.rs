//! Laws of the whole system that take minutes: `cargo xtask test --slow`.

use mfpo_tests::faults;

/// Set to a part of a fault's name to run those alone.
const ONLY: &str = "MFPO_FAULTS";

#[test]
fn every_fault_ends_as_the_table_says() {
    let Ok(only) = std::env::var(ONLY) else {
        let rows = faults::run(|_| true);
        return faults::table::check_all(&rows);
    };
    let rows = faults::run(|row| row.fault.contains(&only));
    assert!(
        !rows.is_empty(),
        "{ONLY} is '{only}': no fault has that in its name (docs/faults.md lists them)"
    );
    faults::table::check_some(&rows);
}
