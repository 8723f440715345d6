//! `pi-agent.toml(5)`: `docs/configuration.md`, which is the one source, as a manual page.

use super::roff;

/// The page. Knows the Markdown that the reference uses: headings, paragraphs, tables, blocks of code, and within a line
/// code, bold, italic and links.
pub fn render(markdown: &str) -> String {
    let mut page = roff::title("pi-agent.toml", 5);
    page.push_str(".SH NAME\npi\\-agent.toml \\- the configuration file of pi\\-agent\n.SH DESCRIPTION\n");
    let (mut code, mut columns, mut gap) = (false, Vec::new(), true);
    for line in markdown.lines() {
        if line.starts_with("```") {
            page.push_str(if code { ".EE\n.RE\n" } else { ".PP\n.RS 4\n.EX\n" });
            code = !code;
            gap = true;
        } else if code {
            page.push_str(&format!("{}\n", roff::escape(line)));
        } else if line.starts_with("# ") || line.starts_with("|--") {
            // The name of the page says the first, the shape of the list the second.
        } else if let Some(heading) = line.strip_prefix('#') {
            let level = if heading.starts_with("##") { "SS" } else { "SH" };
            page.push_str(&format!(".{level} \"{}\"\n", roff::escape(heading.trim_start_matches(['#', ' ']))));
            gap = false;
        } else if line.is_empty() {
            columns.clear();
            gap = true;
        } else if let Some(row) = line.strip_prefix('|') {
            let cells: Vec<_> =
                row.trim_end_matches('|').split(" | ").map(|cell| cell.trim().trim_end_matches('|')).collect();
            if columns.is_empty() {
                columns = cells;
            } else {
                page.push_str(&entry(&columns, &cells));
            }
            gap = true;
        } else {
            if gap {
                page.push_str(".PP\n");
            }
            page.push_str(&format!("{}\n", inline(line)));
            gap = false;
        }
    }
    page.push_str(".SH SEE ALSO\n.BR pi\\-agent (1)\n");
    page
}

/// A row of a table: its first cell names it, the last explains; what is between (type, default) stands in front.
fn entry(columns: &[&str], cells: &[&str]) -> String {
    let (name, rest) = cells.split_first().expect("a row has a first cell");
    let (meaning, facts) = rest.split_last().expect("a row has a last cell");
    let facts: Vec<_> = columns[1..]
        .iter()
        .zip(facts)
        .map(|(column, fact)| match *column {
            "default" if !fact.starts_with('*') => format!("default: {}", inline(fact)),
            "needed" => format!("needed {}", inline(fact)),
            _ => inline(fact),
        })
        .collect();
    let facts = if facts.is_empty() { String::new() } else { format!("({})\n.br\n", facts.join("; ")) };
    let name = if name.contains('`') { inline(name) } else { roff::bold(name) };
    roff::entry(&name, &format!("{facts}{}", inline(meaning)))
}

/// Code and `**…**` in bold, `*…*` in italics, links by their text, and by their address when that is on the web.
fn inline(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some(start) = rest.find(['`', '*', '[']) {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        let opening = if rest.starts_with("**") { "**" } else { &rest[..1] };
        let inner = &rest[opening.len()..];
        let closed = if opening == "[" { inner.find("](") } else { inner.find(opening) };
        let Some(end) = closed else {
            text.push_str(opening);
            rest = inner;
            continue;
        };
        rest = &inner[end + opening.len()..];
        match opening {
            "[" => {
                let (address, after) = rest[1..].split_once(')').expect("a link has an end");
                text.push_str(inner[..end].trim_matches('`'));
                if address.starts_with("http") {
                    text.push_str(&format!(" <{address}>"));
                }
                rest = after;
            }
            "*" => text.push_str(&format!("\u{2}{}\u{3}", &inner[..end])),
            _ => text.push_str(&format!("\u{1}{}\u{3}", &inner[..end])),
        }
    }
    text.push_str(rest);
    // Fonts last, so that escaping leaves them alone.
    roff::escape(&text).replace('\u{1}', "\\fB").replace('\u{2}', "\\fI").replace('\u{3}', "\\fR")
}
