//! A report in the XML of `JUnit`, which CI systems show.

use std::fmt::Write as _;
use std::time::Duration;

/// Something that had to come out equal.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) time: Duration,
    /// How equal it came out, or where it departs.
    pub(super) outcome: Result<String, String>,
}

impl Case {
    pub(super) fn failed(&self) -> bool {
        self.outcome.is_err()
    }
}

/// One suite of all cases.
pub(super) fn report(cases: &[Case]) -> String {
    let (tests, failures) = (cases.len(), cases.iter().filter(|case| case.failed()).count());
    let time: f64 = cases.iter().map(|case| case.time.as_secs_f64()).sum();
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" time=\"{time:.3}\"");
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing into a String cannot fail.
    let _ = writeln!(xml, "<testsuites {counts}>\n  <testsuite name=\"reproduce\" {counts}>");
    for Case { name, time, outcome } in cases {
        let (name, time) = (escaped(name), time.as_secs_f64());
        let _ = write!(xml, "    <testcase classname=\"reproduce\" name=\"{name}\" time=\"{time:.3}\">");
        let _ = match outcome {
            Ok(how) => write!(xml, "<system-out>{}</system-out>", escaped(how)),
            Err(why) => {
                let first = why.lines().next().unwrap_or_default();
                write!(xml, "<failure message=\"{}\">{}</failure>", escaped(first), escaped(why))
            }
        };
        xml.push_str("</testcase>\n");
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// A text for an element or an attribute. XML has no way to say most control characters: a question mark stands for each.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\n' => safe.push_str("&#10;"),
            '\t' => safe.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => safe.push('?'),
            other if other.is_control() => safe.push('?'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(
            escaped("a<b> & \"c\" 'd'\n\t\u{1b}[1m\u{0}é"),
            "a&lt;b&gt; &amp; &quot;c&quot; &apos;d&apos;&#10;&#9;?[1m?é"
        );
    }

    #[test]
    fn a_report_counts_and_says_why() {
        let case = |name: &str, outcome| Case { name: name.into(), time: Duration::from_millis(1500), outcome };
        let cases = [case("good", Ok("8 steps".into())), case("<bad>", Err("step 3: \"x\" differs\nmore".into()))];
        let counts = "tests=\"2\" failures=\"1\" errors=\"0\" time=\"3.000\"";
        let expected = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n  <testsuite name=\"reproduce\" {counts}>\n    \
             <testcase classname=\"reproduce\" name=\"good\" time=\"1.500\"><system-out>8 steps</system-out></testcase>\n    \
             <testcase classname=\"reproduce\" name=\"&lt;bad&gt;\" time=\"1.500\">\
             <failure message=\"step 3: &quot;x&quot; differs\">step 3: &quot;x&quot; differs&#10;more</failure></testcase>\n  \
             </testsuite>\n</testsuites>\n"
        );
        assert_eq!(report(&cases), expected);
        assert!(report(&[]).contains("tests=\"0\""));
    }
}
