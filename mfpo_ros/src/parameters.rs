//! Parameters that are declared with a default, a description and a check, and that refuse a bad value or an
//! unknown name with a reason.

use std::borrow::Cow;

use thiserror::Error;

pub use r2r::ParameterValue;

/// A value as an operator writes it: `true`, `0.5`, `'text'`, `[1, 2]`.
pub fn shown(value: &ParameterValue) -> String {
    fn list<T>(values: &[T], one: impl Fn(&T) -> String) -> String {
        let values: Vec<String> = values.iter().map(one).collect();
        format!("[{}]", values.join(", "))
    }
    match value {
        ParameterValue::NotSet => "nothing".to_owned(),
        ParameterValue::Bool(value) => value.to_string(),
        ParameterValue::Integer(value) => value.to_string(),
        ParameterValue::Double(value) => value.to_string(),
        ParameterValue::String(value) => format!("'{value}'"),
        ParameterValue::BoolArray(values) => list(values, bool::to_string),
        ParameterValue::ByteArray(values) => list(values, u8::to_string),
        ParameterValue::IntegerArray(values) => list(values, i64::to_string),
        ParameterValue::DoubleArray(values) => list(values, f64::to_string),
        ParameterValue::StringArray(values) => list(values, |value| format!("'{value}'")),
    }
}

/// What a value must hold besides its type.
pub type Check = fn(&ParameterValue) -> Result<(), String>;

/// What the names of parameters begin with that set the quality of service of a topic.
pub const QOS_OVERRIDES: &str = "qos_overrides.";

/// The smallest and the largest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// Of a number.
    Double(f64, f64),
    /// Of a whole number.
    Integer(i64, i64),
}

impl Range {
    fn check(&self, value: &ParameterValue) -> Result<(), String> {
        let is_inside = match (self, value) {
            (Self::Double(low, high), ParameterValue::Double(value)) => (*low..=*high).contains(value),
            (Self::Integer(low, high), ParameterValue::Integer(value)) => (*low..=*high).contains(value),
            _ => true,
        };
        if is_inside {
            return Ok(());
        }
        let (low, high) = match self {
            Self::Double(low, high) => (low.to_string(), high.to_string()),
            Self::Integer(low, high) => (low.to_string(), high.to_string()),
        };
        Err(format!("expected {low} to {high}, got {}", shown(value)))
    }
}

/// One declared parameter.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its value when nobody sets it; its type is the parameter's type.
    pub default: ParameterValue,
    /// What it does, with its unit.
    pub description: Cow<'static, str>,
    /// What a value must hold, in words, where a range does not say it.
    pub constraints: &'static str,
    /// The smallest and the largest value.
    pub range: Option<Range>,
    /// May it be set while the node runs?
    pub at_run_time: bool,
    /// What a value must hold besides its type and range.
    pub check: Check,
}

impl Declared {
    /// A parameter that takes every value of its type, before the node runs.
    pub fn new(name: &'static str, default: ParameterValue, description: &'static str) -> Self {
        Self::given(name, default, description)
    }

    /// The same of a parameter that is known only from the value that it was given.
    pub fn given(
        name: impl Into<Cow<'static, str>>,
        value: ParameterValue,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            name: name.into(),
            default: value,
            description: description.into(),
            constraints: "",
            range: None,
            at_run_time: false,
            check: |_| Ok(()),
        }
    }

    /// It may be set while the node runs.
    #[must_use]
    pub fn at_run_time(self) -> Self {
        Self {
            at_run_time: true,
            ..self
        }
    }

    /// Its values lie in a range.
    #[must_use]
    pub fn range(self, range: Range) -> Self {
        Self {
            range: Some(range),
            ..self
        }
    }

    /// Its values pass a check, which is told in words.
    #[must_use]
    pub fn check(self, check: Check, constraints: &'static str) -> Self {
        Self {
            check,
            constraints,
            ..self
        }
    }
}

/// Why a parameter was refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ParameterError {
    /// Nobody declared that name.
    #[error("unknown parameter '{name}'; did you mean '{closest}'? The parameters are: {known}")]
    Unknown {
        /// The name that came.
        name: String,
        /// The most similar declared name.
        closest: String,
        /// All declared names.
        known: String,
    },
    /// The value has another type than the default.
    #[error("parameter '{name}': expected {expected}, got {got}")]
    WrongType {
        /// The parameter.
        name: String,
        /// The declared type.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The value has the right type and is wrong nevertheless.
    #[error("parameter '{name}': {reason}")]
    BadValue {
        /// The parameter.
        name: String,
        /// Expected and got.
        reason: String,
    },
    /// The node is running and the parameter is fixed.
    #[error(
        "parameter '{name}' cannot be changed while the node runs; set it at the start (parameter file, -p)"
    )]
    Fixed {
        /// The parameter.
        name: String,
    },
}

/// The declared parameters of a node and their values.
#[derive(Debug, Clone)]
pub struct Parameters {
    declared: Vec<Declared>,
    values: Vec<ParameterValue>,
    running: bool,
}

impl Parameters {
    /// Every parameter at its default.
    pub fn new(declared: Vec<Declared>) -> Self {
        let values = declared.iter().map(|d| d.default.clone()).collect();
        Self {
            declared,
            values,
            running: false,
        }
    }

    /// Declares one more, which has its default.
    pub fn declare(&mut self, declared: Declared) {
        self.values.push(declared.default.clone());
        self.declared.push(declared);
    }

    /// Takes the values that a parameter file or the command line gave. Those of quality of service are declared when it is known
    /// which topics there are.
    ///
    /// # Errors
    /// The first one that is unknown, of another type, or bad.
    pub fn apply<'a>(
        &mut self,
        given: impl IntoIterator<Item = (&'a String, &'a ParameterValue)>,
    ) -> Result<(), ParameterError> {
        for (name, value) in given {
            if !name.starts_with(QOS_OVERRIDES) {
                self.set(name, value)?;
            }
        }
        Ok(())
    }

    /// From now on only parameters that may change at run time can be set.
    pub fn freeze(&mut self) {
        self.running = true;
    }

    /// The parameters as they were declared.
    pub fn declared(&self) -> impl Iterator<Item = &Declared> {
        self.declared.iter()
    }

    /// The value of a declared parameter.
    pub fn get(&self, name: &str) -> Option<&ParameterValue> {
        self.index(name).and_then(|index| self.values.get(index))
    }

    /// Sets one parameter.
    ///
    /// # Errors
    /// When the name is unknown, the value bad, or the parameter fixed.
    pub fn set(&mut self, name: &str, value: &ParameterValue) -> Result<(), ParameterError> {
        let (index, value) = self.checked(name, value)?;
        if let Some(slot) = self.values.get_mut(index) {
            *slot = value;
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(|d| &*d.name)
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.declared.iter().position(|d| d.name == name)
    }

    fn checked(&self, name: &str, value: &ParameterValue) -> Result<(usize, ParameterValue), ParameterError> {
        let unknown = || ParameterError::Unknown {
            name: name.to_owned(),
            closest: closest(name, self.names()).unwrap_or_default(),
            known: self.names().collect::<Vec<_>>().join(", "),
        };
        let index = self.index(name).ok_or_else(unknown)?;
        let declared = self.declared.get(index).ok_or_else(unknown)?;
        let value = widened(value, &declared.default);
        if value.type_name() != declared.default.type_name() {
            return Err(ParameterError::WrongType {
                name: name.to_owned(),
                expected: declared.default.type_name(),
                got: format!("{} ({})", value.type_name(), shown(&value)),
            });
        }
        let in_range = |()| declared.range.map_or(Ok(()), |range| range.check(&value));
        (declared.check)(&value)
            .and_then(in_range)
            .map_err(|reason| ParameterError::BadValue {
                name: name.to_owned(),
                reason,
            })?;
        if self.running && !declared.at_run_time && self.values.get(index) != Some(&value) {
            return Err(ParameterError::Fixed {
                name: name.to_owned(),
            });
        }
        Ok((index, value))
    }
}

/// YAML writes `50` for `50.0`, `a` for `[a]` and nothing for `[]`; all mean what the default's type says.
fn widened(value: &ParameterValue, default: &ParameterValue) -> ParameterValue {
    match (value, default) {
        (ParameterValue::Integer(number), ParameterValue::Double(_)) => {
            ParameterValue::Double(*number as f64)
        }
        (ParameterValue::String(text), ParameterValue::StringArray(_)) if text.is_empty() => {
            ParameterValue::StringArray(Vec::new())
        }
        (ParameterValue::String(text), ParameterValue::StringArray(_)) => {
            ParameterValue::StringArray(vec![text.clone()])
        }
        (ParameterValue::Integer(number), ParameterValue::IntegerArray(_)) => {
            ParameterValue::IntegerArray(vec![*number])
        }
        (ParameterValue::String(text), ParameterValue::IntegerArray(_)) if text.is_empty() => {
            ParameterValue::IntegerArray(Vec::new())
        }
        (ParameterValue::Integer(number), ParameterValue::DoubleArray(_)) => {
            ParameterValue::DoubleArray(vec![*number as f64])
        }
        (ParameterValue::Double(number), ParameterValue::DoubleArray(_)) => {
            ParameterValue::DoubleArray(vec![*number])
        }
        (ParameterValue::IntegerArray(numbers), ParameterValue::DoubleArray(_)) => {
            ParameterValue::DoubleArray(numbers.iter().map(|number| *number as f64).collect())
        }
        (ParameterValue::String(text), ParameterValue::DoubleArray(_)) if text.is_empty() => {
            ParameterValue::DoubleArray(Vec::new())
        }
        (other, _) => other.clone(),
    }
}

/// The most similar of `names`, for "did you mean"; one of which `name` is a part goes before all others.
pub fn closest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let likeness = |other: &str| {
        let is_part = name.len() >= 4 && other.contains(name);
        strsim::jaro_winkler(name, other) + f64::from(u8::from(is_part))
    };
    names
        .into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(value: &ParameterValue) -> Result<(), String> {
        match value {
            ParameterValue::Double(number) if *number > 0.0 => Ok(()),
            other => Err(format!("expected a number above 0, got {other:?}")),
        }
    }

    #[test]
    fn a_name_that_holds_the_word_is_closer_than_one_that_sounds_like_it() {
        let names = ["cpu_affinity", "realtime_priority", "rate", "policy"];
        assert_eq!(closest("priority", names).unwrap(), "realtime_priority");
        assert_eq!(closest("polcy", names).unwrap(), "policy");
        assert_eq!(closest("rat", names).unwrap(), "rate");
    }

    #[test]
    fn a_value_is_shown_as_an_operator_writes_it() {
        for (value, text) in [
            (ParameterValue::Bool(false), "false"),
            (ParameterValue::Integer(-3), "-3"),
            (ParameterValue::Double(0.201), "0.201"),
            (ParameterValue::String("on_state".into()), "'on_state'"),
            (ParameterValue::IntegerArray(vec![0, 1]), "[0, 1]"),
            (ParameterValue::DoubleArray(vec![0.5]), "[0.5]"),
            (
                ParameterValue::StringArray(vec!["a".into(), "b".into()]),
                "['a', 'b']",
            ),
        ] {
            assert_eq!(shown(&value), text);
        }
    }

    fn parameters() -> Parameters {
        Parameters::new(vec![
            Declared::new("rate", ParameterValue::Double(50.0), "").check(positive, "above 0"),
            Declared::new("accept", ParameterValue::Bool(true), "").at_run_time(),
            Declared::new("runs", ParameterValue::StringArray(vec![]), ""),
            Declared::new("cpus", ParameterValue::IntegerArray(vec![]), ""),
            Declared::new("efforts", ParameterValue::DoubleArray(vec![]), ""),
        ])
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_closest_valid_name() {
        let error = parameters()
            .set("rat", &ParameterValue::Double(1.0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("'rat'") && error.contains("did you mean 'rate'"),
            "{error}"
        );
    }

    #[test]
    fn wrong_types_and_bad_values_are_refused_with_expected_and_got() {
        let mut p = parameters();
        let error = p
            .set("accept", &ParameterValue::Integer(1))
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected boolean, got integer"), "{error}");
        let error = p
            .set("rate", &ParameterValue::Double(-1.0))
            .unwrap_err()
            .to_string();
        assert!(error.contains("above 0") && error.contains("-1"), "{error}");
        assert_eq!(p.get("rate"), Some(&ParameterValue::Double(50.0)));
    }

    #[test]
    fn whole_numbers_and_single_words_mean_what_the_declared_type_says() {
        let mut p = parameters();
        p.set("rate", &ParameterValue::Integer(100)).unwrap();
        assert_eq!(p.get("rate"), Some(&ParameterValue::Double(100.0)));
        p.set("runs", &ParameterValue::String("a".into())).unwrap();
        assert_eq!(
            p.get("runs"),
            Some(&ParameterValue::StringArray(vec!["a".into()]))
        );
        for (given, meant) in [
            (ParameterValue::Integer(3), vec![3]),
            (ParameterValue::String(String::new()), vec![]),
        ] {
            p.set("cpus", &given).unwrap();
            assert_eq!(p.get("cpus"), Some(&ParameterValue::IntegerArray(meant)));
        }
        for (given, meant) in [
            (ParameterValue::Integer(3), vec![3.0]),
            (ParameterValue::Double(0.5), vec![0.5]),
            (ParameterValue::IntegerArray(vec![1, 0]), vec![1.0, 0.0]),
            (ParameterValue::String(String::new()), vec![]),
        ] {
            p.set("efforts", &given).unwrap();
            assert_eq!(p.get("efforts"), Some(&ParameterValue::DoubleArray(meant)));
        }
    }

    #[test]
    fn only_run_time_parameters_change_while_the_node_runs() {
        let mut p = parameters();
        p.freeze();
        p.set("accept", &ParameterValue::Bool(false)).unwrap();
        let error = p
            .set("rate", &ParameterValue::Double(10.0))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot be changed"), "{error}");
        p.set("rate", &ParameterValue::Double(50.0)).unwrap();
    }

    #[test]
    fn quality_of_service_is_declared_as_it_was_given_and_stays_so() {
        let name = "qos_overrides./commands.publisher.depth".to_owned();
        let (two, three) = (ParameterValue::Integer(2), ParameterValue::Integer(3));
        let mut p = parameters();
        p.apply([(&name, &two)]).unwrap();
        assert_eq!(p.get(&name), None, "not before the topics are known");
        p.declare(Declared::given(name.clone(), two.clone(), "a depth"));
        p.freeze();
        assert_eq!(p.get(&name), Some(&two));
        let error = p.set(&name, &three).unwrap_err().to_string();
        assert!(error.contains("cannot be changed"), "{error}");
        assert_eq!(p.get(&name), Some(&two));
    }
}
