//! Expands a scenario file to one scenario for every combination of the values in its `[matrix]`.
//!
//! `@axis@` in any string is replaced by the value of that axis, `@axis.field@` by a field of a value that is a table. A string that
//! consists of nothing else becomes the value itself: number, text or list. A table in a list may have `when = { axis = value }` (or a
//! list of values, or `"axis.field"`): other combinations do not have that table.

use toml::{Table, Value};

use crate::error::{Context, Error, Result};

/// Expands a scenario file's table; the results have neither `matrix` nor `when`.
pub(crate) fn expand(mut file: Table) -> Result<Vec<Table>> {
    let axes = match file.remove("matrix") {
        None => Table::new(),
        Some(Value::Table(axes)) => axes,
        Some(_) => return Err(Error::new("matrix: a table of lists is expected")),
    };
    combinations(&axes)?
        .iter()
        .map(|chosen| match resolve(Value::Table(file.clone()), chosen)? {
            Some(Value::Table(scenario)) => Ok(scenario),
            _ => Err(Error::new("when: allowed in tables of a list only")),
        })
        .collect()
}

fn combinations(axes: &Table) -> Result<Vec<Table>> {
    let mut all = vec![Table::new()];
    for (axis, values) in axes {
        let values = values.as_array().filter(|values| !values.is_empty());
        let values = values.context(format_args!("matrix.{axis}: a list of values is expected"))?;
        let with = |chosen: &Table, value: &Value| {
            let mut chosen = chosen.clone();
            chosen.insert(axis.clone(), value.clone());
            chosen
        };
        all = all.iter().flat_map(|chosen| values.iter().map(move |value| with(chosen, value))).collect();
    }
    Ok(all)
}

/// Replaces references; `None` for a table whose `when` is not met.
fn resolve(value: Value, chosen: &Table) -> Result<Option<Value>> {
    Ok(Some(match value {
        Value::String(text) => substitute(&text, chosen)?,
        Value::Array(items) => {
            let mut resolved = Vec::new();
            for item in items {
                resolved.extend(resolve(item, chosen)?);
            }
            Value::Array(resolved)
        }
        Value::Table(mut table) => {
            if let Some(when) = table.remove("when")
                && !is_met(&when, chosen)?
            {
                return Ok(None);
            }
            let mut resolved = Table::new();
            for (key, value) in table {
                if let Some(value) = resolve(value, chosen)? {
                    resolved.insert(key, value);
                }
            }
            Value::Table(resolved)
        }
        other => other,
    }))
}

fn is_met(when: &Value, chosen: &Table) -> Result<bool> {
    let conditions = when.as_table().context("when: a table of axis = value is expected")?;
    for (name, wanted) in conditions {
        let value = look_up(name, chosen).context("when")?;
        let met = match wanted {
            Value::Array(any) => any.contains(value),
            one => one == value,
        };
        if !met {
            return Ok(false);
        }
    }
    Ok(true)
}

fn substitute(text: &str, chosen: &Table) -> Result<Value> {
    if let Some(name) =
        text.strip_prefix('@').and_then(|rest| rest.strip_suffix('@')).filter(|name| is_name(name))
    {
        return Ok(look_up(name, chosen)?.clone());
    }
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('@') {
        result += before;
        match after.split_once('@').filter(|(name, _)| is_name(name)) {
            Some((name, after)) => {
                match look_up(name, chosen)? {
                    Value::String(value) => result += value,
                    value => result += &value.to_string(),
                }
                rest = after;
            }
            None => {
                result.push('@');
                rest = after;
            }
        }
    }
    Ok(Value::String(result + rest))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '.')
}

fn look_up<'a>(name: &str, chosen: &'a Table) -> Result<&'a Value> {
    let (axis, field) = name.split_once('.').map_or((name, None), |(axis, field)| (axis, Some(field)));
    let value = chosen.get(axis).context(format_args!("{name}: the matrix has no {axis}"))?;
    match field {
        None => Ok(value),
        Some(field) => value.get(field).context(format_args!("{name}: this {axis} has no {field}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand_text(text: &str) -> Result<Vec<String>> {
        Ok(expand(text.parse().unwrap())?.iter().map(|table| table.to_string()).collect())
    }

    #[test]
    fn a_file_without_a_matrix_is_one_scenario() {
        assert_eq!(expand_text("name = 'a@b'").unwrap(), ["name = \"a@b\"\n"]);
    }

    #[test]
    fn every_combination_occurs_once_and_numbers_stay_numbers() {
        let file = "name = '@kernel@-@vcpus@'\ncount = '@vcpus@'\nmatrix.kernel = ['6.1', '6.12']\nmatrix.vcpus = [1, 4]";
        let expected = ["6.1-1", "6.1-4", "6.12-1", "6.12-4"];
        let scenarios = expand(file.parse().unwrap()).unwrap();
        let names: Vec<_> = scenarios.iter().map(|scenario| scenario["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected);
        let counts: Vec<_> =
            scenarios.iter().map(|scenario| scenario["count"].as_integer().unwrap()).collect();
        assert_eq!(counts, [1, 4, 1, 4]);
    }

    #[test]
    fn values_may_be_tables() {
        let file = "run = 'x @case.name@'\nstatus = '@case.status@'\n\
                    [[matrix.case]]\nname = 'reboot'\nstatus = 0\n[[matrix.case]]\nname = 'crash'\nstatus = 4";
        assert_eq!(
            expand_text(file).unwrap(),
            ["run = \"x reboot\"\nstatus = 0\n", "run = \"x crash\"\nstatus = 4\n"]
        );
    }

    #[test]
    fn lists_are_values_and_fields_are_conditions() {
        let file = "step = '@case.step@'\nsee = [{ text = 'x', when = { 'case.name' = 'b' } }]\n\
                    [[matrix.case]]\nname = 'a'\nstep = [{ expect = 'e' }]\n[[matrix.case]]\nname = 'b'\nstep = []";
        let scenarios = expand(file.parse().unwrap()).unwrap();
        let lengths = |key: &str| -> Vec<usize> {
            scenarios.iter().map(|scenario| scenario[key].as_array().unwrap().len()).collect()
        };
        assert_eq!((lengths("step"), lengths("see")), (vec![1, 0], vec![0, 1]));
    }

    #[test]
    fn tables_with_an_unmet_condition_are_omitted() {
        let file = "matrix.firmware = ['acpi', 'mptable']\n[[see]]\ntext = 'DSDT'\nwhen = { firmware = 'acpi' }\n\
                    [[see]]\ntext = 'both'\nwhen = { firmware = ['acpi', 'mptable'] }";
        let texts: Vec<usize> = expand(file.parse().unwrap())
            .unwrap()
            .iter()
            .map(|scenario| scenario["see"].as_array().unwrap().len())
            .collect();
        assert_eq!(texts, [2, 1]);
    }

    #[test]
    fn mistakes_are_reported() {
        let error = |text: &str| expand_text(text).unwrap_err().to_string();
        assert_eq!(error("a = '@vcpu@'\nmatrix.vcpus = [1]"), "vcpu: the matrix has no vcpu");
        assert_eq!(error("a = '@c.x@'\nmatrix.c = [{ y = 1 }]"), "c.x: this c has no x");
        assert_eq!(error("matrix.vcpus = []"), "matrix.vcpus: a list of values is expected");
        assert_eq!(error("matrix.a = [1]\ns = [{ when = { b = 1 } }]"), "when: b: the matrix has no b");
        assert_eq!(error("matrix.a = [1]\nwhen = { a = 2 }"), "when: allowed in tables of a list only");
    }
}
