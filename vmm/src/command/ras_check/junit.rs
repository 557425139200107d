//! JUnit XML, as Jenkins and GitLab read it: one suite, a test case for each case.

use std::fmt::Write as _;

use super::report::{Checked, Judgement, Report};

/// The report as XML.
pub(super) fn xml(report: &Report) -> String {
    let counts = report.counts();
    let seconds: f64 = report.cases().iter().map(Checked::seconds).sum();
    let suite = format!("ras-check {} {}", report.architecture, report.kernel);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let numbers = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{seconds:.3}\"",
        counts.total,
        counts.unexpected + counts.unknown,
        counts.skipped
    );
    // Writing to a String cannot fail.
    let _ = write!(xml, "<testsuites {numbers}>\n  <testsuite name=\"{}\" {numbers}>\n", escaped(&suite));
    for case in report.cases() {
        let _ = writeln!(
            xml,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
            escaped(&case.class()),
            escaped(&case.place()),
            case.seconds()
        );
        match case.result {
            Judgement::Expected => {}
            Judgement::Skipped => {
                let _ = writeln!(xml, "      <skipped message=\"{}\"/>", escaped(&case.reason));
            }
            Judgement::Unexpected | Judgement::Unknown => {
                let _ = writeln!(
                    xml,
                    "      <failure type=\"{}\" message=\"{}\"/>",
                    case.result.name(),
                    escaped(&case.reason)
                );
            }
        }
        if !case.lines.is_empty() {
            let _ = writeln!(xml, "      <system-out>{}</system-out>", escaped(&case.lines.join("\n")));
        }
        xml.push_str("    </testcase>\n");
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Text of XML, in an element or an attribute. Characters that XML 1.0 excludes become `?`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b> & \"c\"\n\u{1b}\u{e4}"), "a&lt;b&gt; &amp; &quot;c&quot;\n?\u{e4}");
    }
}
