//! `cargo xtask dist`: the release binary as an archive and as a Debian package, made alike from alike: fixed order, owners
//! and times. `check` installs the package into a throw-away copy of this system and looks at what came of it.
//! It signs and uploads nothing.
use crate::run::{cargo, must, output, program, root, target_folder};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The oldest glibc that the binary may need: Debian 12, Ubuntu 22.04, RHEL 9.
const GLIBC_MAX: (u32, u32) = (2, 34);
/// `systemd-analyze security`: 0 is closed, 10 is open.
const EXPOSURE_MAX: &str = "20";

/// Builds for release, or takes `binary`, and leaves everything in `target/dist`.
pub(crate) fn run(binary: Option<&Path>) -> Result<()> {
    let built = match binary {
        Some(binary) => binary.to_owned(),
        None => {
            must(cargo(&["build", "--release", "--locked", "-p", "countersign"]))?;
            target_folder().join("release/countersign")
        }
    };
    let made = Made::new(&built)?;
    made.archive()?;
    made.package()?;
    made.sums()?;
    println!("in {}:", made.folder.display());
    println!("{}", output(program("ls", &["-l", &made.folder.to_string_lossy()]))?);
    Ok(())
}

/// With the debug binary: what is checked is the packaging.
pub(crate) fn check() -> Result<()> {
    must(cargo(&["build", "--locked", "-p", "countersign"]))?;
    let binary = target_folder().join("debug/countersign");
    run(Some(&binary))?;
    let made = Made::new(&binary)?;
    let first = fs::read(made.sums_file())?;
    run(Some(&binary))?;
    ensure!(first == fs::read(made.sums_file())?, "two runs over one binary made different files");
    needs_little(&made.binary())?;
    let unit = root().join("packaging/systemd/countersign.service");
    let unit = unit.to_string_lossy();
    output(program("systemd-analyze", &["security", "--offline=yes", "--threshold", EXPOSURE_MAX, &unit]))
        .context("the unit leaves more open than it may")?;
    installs(&made)?;
    kubernetes()
}

/// What is made of one binary, and where.
struct Made {
    folder: PathBuf,
    version: String,
    /// Of the last commit: the time that every file in a package gets.
    time: String,
}

impl Made {
    fn new(binary: &Path) -> Result<Made> {
        let told = output(program(binary, &["--version"]))?;
        let version = told.split_whitespace().nth(1).context("the binary tells no version")?.to_owned();
        let time = output(program("git", &["log", "-1", "--format=%ct"]))?.trim().to_owned();
        let folder = target_folder().join("dist");
        fs::create_dir_all(&folder)?;
        let made = Made { folder, version, time };
        must(program("strip", &["-o", &made.binary().to_string_lossy(), &binary.to_string_lossy()]))?;
        Ok(made)
    }

    fn binary(&self) -> PathBuf {
        self.folder.join("countersign")
    }

    fn sums_file(&self) -> PathBuf {
        self.folder.join("SHA256SUMS")
    }

    fn archive_name(&self) -> String {
        format!("countersign-{}-{}-linux", self.version, std::env::consts::ARCH)
    }

    fn package_name(&self) -> String {
        format!("countersign_{}_{}.deb", self.version, debian_architecture())
    }

    /// `countersign-VERSION-ARCH-linux.tar.gz`: binary, unit, completions, schemas, documentation.
    fn archive(&self) -> Result<()> {
        let name = self.archive_name();
        let tree = fresh(&self.folder.join(&name))?;
        put(&self.binary(), &tree.join("countersign"), 0o755)?;
        for file in ["LICENSE", "README.md", "CHANGELOG.md", "packaging/systemd/countersign.service"] {
            put(&root().join(file), &tree.join(Path::new(file).file_name().context("a name")?), 0o644)?;
        }
        put_all(&root().join("docs"), &tree.join("docs"))?;
        put_all(&root().join("schema"), &tree.join("schema"))?;
        self.completions(&tree.join("completions"))?;
        let file = self.folder.join(format!("{name}.tar"));
        let mtime = format!("--mtime=@{}", self.time);
        let folder = self.folder.to_string_lossy();
        let plain = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar", &mtime];
        let mut tar = program("tar", &plain);
        tar.args(["-C", &folder, "-cf"]).arg(&file).arg(&name);
        must(tar)?;
        must(program("gzip", &["-9nf", &file.to_string_lossy()]))?;
        Ok(fs::remove_dir_all(tree)?)
    }

    fn completions(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for (shell, name) in [("bash", "countersign.bash"), ("zsh", "_countersign"), ("fish", "countersign.fish")] {
            fs::write(folder.join(name), output(program(self.binary(), &["completions", shell]))?)?;
        }
        Ok(())
    }

    /// The tree of the package, then dpkg-deb.
    fn package(&self) -> Result<()> {
        let tree = fresh(&self.folder.join("deb"))?;
        let packaging = root().join("packaging");
        put(&self.binary(), &tree.join("usr/bin/countersign"), 0o755)?;
        put(&packaging.join("countersign.yaml"), &tree.join("etc/countersign/countersign.yaml"), 0o644)?;
        fs::create_dir_all(tree.join("etc/countersign/services"))?;
        let unit = "systemd/countersign.service";
        put(&packaging.join(unit), &tree.join("lib/systemd/system/countersign.service"), 0o644)?;
        let doc = tree.join("usr/share/doc/countersign");
        put_all(&root().join("docs"), &doc)?;
        put_all(&root().join("schema"), &doc.join("schema"))?;
        put(&root().join("README.md"), &doc.join("README.md"), 0o644)?;
        put(&root().join("LICENSE"), &doc.join("copyright"), 0o644)?;
        put(&packaging.join("service.example.yaml"), &doc.join("examples/service.yaml"), 0o644)?;
        let completions = self.folder.join("completions");
        self.completions(&completions)?;
        let share = tree.join("usr/share");
        put(&completions.join("countersign.bash"), &share.join("bash-completion/completions/countersign"), 0o644)?;
        put(&completions.join("_countersign"), &share.join("zsh/vendor-completions/_countersign"), 0o644)?;
        put(&completions.join("countersign.fish"), &share.join("fish/vendor_completions.d/countersign.fish"), 0o644)?;
        fs::remove_dir_all(completions)?;
        self.control(&tree)?;
        let mut build = program("dpkg-deb", &["--root-owner-group", "--build"]);
        build.arg(&tree).arg(self.folder.join(self.package_name())).env("SOURCE_DATE_EPOCH", &self.time);
        must(build)?;
        Ok(fs::remove_dir_all(tree)?)
    }

    fn control(&self, tree: &Path) -> Result<()> {
        let debian = root().join("packaging/debian");
        let kib = output(program("du", &["-sk", "--apparent-size", &tree.to_string_lossy()]))?;
        let kib = kib.split_whitespace().next().context("a size")?;
        let text = fs::read_to_string(debian.join("control"))?;
        let text = text.replace("@VERSION@", &self.version).replace("@ARCHITECTURE@", debian_architecture());
        let control = tree.join("DEBIAN");
        fs::create_dir_all(&control)?;
        fs::write(control.join("control"), text.replace("@KIB@", kib))?;
        put(&debian.join("conffiles"), &control.join("conffiles"), 0o644)?;
        for script in ["postinst", "prerm", "postrm"] {
            put(&debian.join(script), &control.join(script), 0o755)?;
        }
        Ok(())
    }

    fn sums(&self) -> Result<()> {
        let mut sums =
            program("sha256sum", &["countersign", &format!("{}.tar.gz", self.archive_name()), &self.package_name()]);
        sums.current_dir(&self.folder);
        Ok(fs::write(self.sums_file(), output(sums)?)?)
    }
}

fn debian_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    Ok(folder.to_owned())
}

fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// The files of one folder, without its folders.
fn put_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            put(&entry.path(), &to.join(entry.file_name()), 0o644)?;
        }
    }
    Ok(())
}

/// Nothing but the C library, and none newer than the systems that we mean.
fn needs_little(binary: &Path) -> Result<()> {
    let dynamic = output(program("readelf", &["-d", &binary.to_string_lossy()]))?;
    let known = ["libc.so.", "libgcc_s.so.", "libm.so.", "ld-linux"];
    let foreign = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .find(|line| !known.iter().any(|name| line.contains(name)));
    ensure!(foreign.is_none(), "the binary needs a library that not every system has: {foreign:?}");
    let symbols = output(program("objdump", &["-T", &binary.to_string_lossy()]))?;
    let versions = symbols.split_whitespace().filter_map(|word| word.trim_matches(['(', ')']).strip_prefix("GLIBC_"));
    let newest = versions.filter_map(|text| {
        let mut numbers = text.split('.').map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    match newest.max() {
        Some(newest) if newest <= GLIBC_MAX => Ok(()),
        newest => bail!("the binary needs glibc {newest:?}, and {GLIBC_MAX:?} has to do"),
    }
}

/// Installs, runs, and purges the package on top of this system, in a layer that is thrown away.
fn installs(made: &Made) -> Result<()> {
    let package = made.folder.join(made.package_name());
    let script = "set -e\n\
        layer=$(mktemp -d); mount -t tmpfs none \"$layer\"; mkdir \"$layer/upper\" \"$layer/work\" \"$layer/root\"\n\
        mount -t overlay overlay -o \"lowerdir=/,upperdir=$layer/upper,workdir=$layer/work\" \"$layer/root\"\n\
        mount -t proc proc \"$layer/root/proc\"; mount --bind /dev \"$layer/root/dev\"\n\
        cp \"$1\" \"$layer/root/tmp/countersign.deb\"\n\
        chroot \"$layer/root\" sh -ec '\n\
          dpkg -i /tmp/countersign.deb\n\
          countersign --version\n\
          id countersign\n\
          test \"$(stat -c \"%U:%G %a\" /etc/countersign)\" = \"root:countersign 750\"\n\
          cp /usr/share/doc/countersign/examples/service.yaml /etc/countersign/services/orders.yaml\n\
          setpriv --reuid countersign --regid countersign --clear-groups countersign check -c /etc/countersign/countersign.yaml\n\
          systemd-analyze verify /lib/systemd/system/countersign.service\n\
          dpkg -r countersign && test -e /etc/countersign/countersign.yaml\n\
          dpkg -P countersign && test ! -e /etc/countersign/countersign.yaml\n\
          test ! -e /usr/bin/countersign'\n";
    let mut unshared = program("unshare", &["--mount", "sh", "-c", script, "installs"]);
    unshared.arg(package);
    let told =
        output(unshared).context("the package does not install, run, verify or purge as it should (needs root)")?;
    println!("{told}");
    Ok(())
}

/// The manifests against the schemas of Kubernetes, and the configuration in them against ours.
fn kubernetes() -> Result<()> {
    let folder = root().join("examples/kubernetes");
    let python = crate::peers::python_of("test");
    must(program(&python, &["tests/peers/kubernetes_check.py", &folder.to_string_lossy()]))?;
    let made = fresh(&target_folder().join("dist/kubernetes"))?;
    let mut unpack = program(&python, &["tests/peers/kubernetes_check.py", &folder.to_string_lossy()]);
    unpack.arg("--unpack").arg(&made);
    must(unpack)?;
    let identity = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=shop.acme.example",
    ];
    let mut certificate = program("openssl", &identity);
    certificate.arg("-keyout").arg(made.join("tls.key")).arg("-out").arg(made.join("tls.crt"));
    output(certificate)?;
    let config = made.join("countersign.yaml");
    let text = fs::read_to_string(&config)?.replace("/etc/countersign-tls/", "");
    fs::write(&config, text)?;
    let mut check = program(target_folder().join("debug/countersign"), &["check", "-c"]);
    check.arg(config);
    must(check)
}
