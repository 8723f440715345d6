//! `make generated`: writes again what of the package is made from the sources.

use harness::generated;

fn main() -> std::io::Result<()> {
    for file in generated::files() {
        let path = generated::project().join(file.path);
        if std::fs::read_to_string(&path).unwrap_or_default() != file.content {
            std::fs::write(&path, file.content)?;
            println!("written: {}", file.path);
        }
    }
    Ok(())
}
