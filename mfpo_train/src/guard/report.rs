//! What `guard` found, in words and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::evidence::Evidence;
use super::{Episode, Fault, IN_A_ROW, IN_TIME, Point, RATES, Signal, mean_return};

/// The returns, what the data can vouch for, and a table for each rate of false alarms that it can.
pub(super) fn in_words(
    results: &[Signal],
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
    results: &[Signal],
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
    for signal in results {
        write!(text, "{:<28}", signal.name)?;
        match signal.at(rate) {
            None => write!(text, " no threshold")?,
            Some(point) => {
                for (share, median) in &point.faults {
                    let median = median.map_or_else(|| "-".to_owned(), |median| format!("{median:.2}"));
                    write!(text, " {:>5.0} % ({median:>4})", share * 100.0)?;
                }
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

/// Everything, as one JSON object.
pub(super) fn summary(
    results: &[Signal],
    nominal: &[Episode],
    faults: &[(Fault, Vec<Episode>)],
    evidence: &Evidence,
) -> Value {
    let point = |point: &Point| {
        let by_fault = faults.iter().zip(&point.faults).map(|((fault, _), (share, median))| {
            json!({"fault": fault.name(), "detected": share, "median_s": median})
        });
        json!({"threshold": point.threshold, "false_alarms_per_hour": point.rate, "at_most_per_hour": point.rate_at_most, "detected": point.detected(), "faults": by_fault.collect::<Vec<_>>()})
    };
    let signals = results.iter().map(|signal| {
        json!({"signal": signal.name, "points": signal.points.iter().map(point).collect::<Vec<_>>()})
    });
    json!({"return": mean_return(nominal), "seconds": evidence.seconds, "lowest_rate_per_hour": evidence.lowest_rate(), "in_a_row": IN_A_ROW, "in_time_s": IN_TIME, "signals": signals.collect::<Vec<_>>()})
}
