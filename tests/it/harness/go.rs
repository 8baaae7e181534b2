//! Programs built from the Go modules in `tests/interop`, where Go is installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A Go module below `tests/interop`.
pub(crate) struct Module {
    name: &'static str,
}

impl Module {
    /// The module in `tests/interop/<name>` with everything it needs fetched, or why it can't
    /// be built here.
    pub(crate) fn fetched(name: &'static str) -> Result<Module, String> {
        let module = Module { name };
        let Ok(found) = module.go(&["env", "GOVERSION"]).output() else {
            return Err("go is not installed".to_owned());
        };
        let manifest = std::fs::read_to_string(module.folder().join("go.mod"));
        let manifest = manifest.expect("the module's go.mod");
        let needed = manifest
            .lines()
            .find_map(|line| line.strip_prefix("go "))
            .expect("its go version");
        let found = text(&found);
        if version(&found) < version(needed) {
            return Err(format!("{found} is older than {needed}"));
        }
        Ok(module)
    }

    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/interop")
            .join(self.name)
    }

    /// `go` in the module's folder, with its own version of the language only: none is fetched.
    pub(crate) fn go(&self, args: &[&str]) -> Command {
        let mut go = Command::new("go");
        go.args(args)
            .current_dir(self.folder())
            .env("GOTOOLCHAIN", "local")
            .env("GOWORK", "off");
        go
    }

    /// Runs the module's own tests.
    pub(crate) fn test(&self) {
        let tested = self.go(&["test", "-count=1", "./..."]).output();
        let tested = tested.expect("go runs");
        assert!(tested.status.success(), "{}", text(&tested));
    }

    /// Builds a package of the module or of one it requires, below the target folder, where the
    /// next build finds it up to date. Fails where its sources can't be had.
    pub(crate) fn build(&self, package: &str, tags: &str) -> Result<PathBuf, String> {
        // Names the sources of every package that goes in, and so fetches them.
        let listed = self
            .go(&["list", "-deps", "-tags", tags, package])
            .output()
            .expect("go runs");
        if !listed.status.success() {
            return Err(format!("{package} can't be fetched: {}", text(&listed)));
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
        let folder = folder.join(self.name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let built = self
            .go(&["build", "-tags", tags, "-o"])
            .arg(format!("{}/", folder.display()))
            .arg(package)
            .output()
            .expect("go runs");
        assert!(built.status.success(), "{}", text(&built));
        let name = package.rsplit('/').next().expect("a name");
        Ok(folder.join(if name == "." { self.name } else { name }))
    }
}

/// All that a program printed.
pub(crate) fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

/// `go1.26.8` and `1.26.1` as numbers that compare.
fn version(text: &str) -> Vec<u32> {
    let numbers = text.trim().trim_start_matches("go").split('.');
    numbers.map_while(|number| number.parse().ok()).collect()
}
