//! What `guard` found, in words and as JSON.

use std::fmt::Write;

use mfpo_policy::guard::GuardManifest;
use serde_json::{Value, json};

use super::curve::{Curve, Point};
use super::evidence::Evidence;
use super::{Episode, Fault, IN_A_ROW, IN_TIME, RATES, mean_return};

/// The returns, what the data can vouch for, and a table for each rate of false alarms that it can.
pub(super) fn in_words(
    results: &[Curve],
    nominal: &[Episode],
    faults: &[(Fault, Vec<Episode>)],
    evidence: &Evidence,
) -> Result<String, std::fmt::Error> {
    let mut text = format!("return without a fault: {:.1}\n", mean_return(nominal));
    let returns: Vec<String> = faults
        .iter()
        .map(|(fault, e)| format!("{} {:.1}", fault.name(), mean_return(e)))
        .collect();
    writeln!(text, "return with one: {}", returns.join(", "))?;
    writeln!(
        text,
        "{:.0} s without a fault: with 95 % confidence no fewer than {:.1} false alarms an hour can be stated",
        evidence.seconds,
        evidence.lowest_rate()
    )?;
    for rate in RATES {
        if evidence.lowest_rate() > rate {
            writeln!(
                text,
                "\nat most {rate} false alarms an hour: so little data cannot tell; take --episodes {}",
                evidence.episodes_for(rate)
            )?;
        } else {
            table(&mut text, results, faults, rate)?;
        }
    }
    Ok(text)
}

/// Adds what each signal detects of each fault at so many false alarms an hour.
fn table(
    text: &mut String,
    results: &[Curve],
    faults: &[(Fault, Vec<Episode>)],
    rate: f64,
) -> std::fmt::Result {
    writeln!(
        text,
        "\nat most {rate} false alarms an hour: detected within {IN_TIME} s (median time to the alarm, s)"
    )?;
    write!(text, "{:<28}", "")?;
    for (fault, _) in faults {
        write!(text, " {:>14}", fault.name())?;
    }
    writeln!(text)?;
    for curve in results {
        write!(text, "{:<28}", curve.name())?;
        match curve.at(rate) {
            None => write!(text, " no threshold")?,
            Some(point) => detected(text, point)?,
        }
        writeln!(text)?;
    }
    Ok(())
}

/// Adds the share of each fault that is detected.
fn detected(text: &mut String, point: &Point) -> std::fmt::Result {
    for (share, median) in &point.faults {
        let median = median.map_or_else(|| "-".to_owned(), |median| format!("{median:.2}"));
        write!(text, " {:>5.0} % ({median:>4})", share * 100.0)?;
    }
    Ok(())
}

/// What the guard that a bundle carries already is worth, in words.
pub(super) fn of_own(point: &Point) -> Result<String, std::fmt::Error> {
    let mut text = format!(
        "\nthe bundle's own guard - {}, {} ticks in a row -: {:.0} false alarms an hour measured, with 95 % confidence at most {:.0}\n{:<28}",
        beyond(&point.guard),
        point.guard.in_a_row,
        point.rate,
        point.rate_at_most,
        "detected, as above"
    );
    detected(&mut text, point)?;
    text.push('\n');
    Ok(text)
}

/// The same as JSON.
pub(super) fn own_summary(point: &Point, faults: &[(Fault, Vec<Episode>)]) -> Value {
    json!({"guard": point.guard, "false_alarms_per_hour": point.rate, "at_most_per_hour": point.rate_at_most, "detected": point.detected(), "faults": by_fault(point, faults)})
}

fn by_fault(point: &Point, faults: &[(Fault, Vec<Episode>)]) -> Vec<Value> {
    let each = faults.iter().zip(&point.faults);
    each.map(
        |((fault, _), (share, median))| json!({"fault": fault.name(), "detected": share, "median_s": median}),
    )
    .collect()
}

/// Everything, as one JSON object.
pub(super) fn summary(
    results: &[Curve],
    nominal: &[Episode],
    faults: &[(Fault, Vec<Episode>)],
    evidence: &Evidence,
) -> Value {
    let point = |curve: &Curve, point: &Point| {
        let severity = curve
            .signals
            .first()
            .and_then(|signal| Some(signal.severity(point.guard.limit(*signal)?)));
        json!({"threshold": severity, "false_alarms_per_hour": point.rate, "at_most_per_hour": point.rate_at_most, "detected": point.detected(), "faults": by_fault(point, faults)})
    };
    let signals = results.iter().map(|curve| {
        let points = curve.points.iter().map(|at| point(curve, at));
        json!({"signal": curve.name(), "points": points.collect::<Vec<_>>()})
    });
    json!({"return": mean_return(nominal), "seconds": evidence.seconds, "lowest_rate_per_hour": evidence.lowest_rate(), "in_a_row": IN_A_ROW, "in_time_s": IN_TIME, "signals": signals.collect::<Vec<_>>()})
}

/// When a guard's signals are beyond what it allows, in words.
pub(super) fn beyond(guard: &GuardManifest) -> String {
    let candidates = guard.candidates;
    let clauses = [
        guard
            .disagreement_max
            .map(|limit| format!("one step is more than {limit:.4} from all")),
        guard
            .spread_max
            .map(|limit| format!("{candidates} candidates are spread by more than {limit:.4}")),
        guard
            .value_min
            .map(|limit| format!("the best of {candidates} is valued below {limit:.4}")),
    ];
    let clauses: Vec<String> = clauses.into_iter().flatten().collect();
    clauses.join(" or ")
}
