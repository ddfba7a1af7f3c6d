//! `hallpass policy init`: a grant for the job of one token, and the tests that go with it, written beside what is there
//! already. It overwrites nothing.
//!
//! Nobody checks the token's signature here, and the command says so: what it writes is a draft for a review, not a
//! decision. Of the token nothing is kept but the claims that the rule names and what every token of its CI system has.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{claims, schema};
use crate::{
    adapters::policy_source::PolicySource,
    cli::{
        exit::{Done, Exit, Failure, chain},
        output::{self, Output},
    },
    kernel::{
        identity::{profile::Profile, profiles},
        name::{GrantName, IssuerName, SecretName},
        policy::{
            Finding, PolicySet, load,
            set::Files,
            suite::draft::{Draft, DraftFault, Wish, draft},
        },
    },
};

/// `policy init`
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["token", "claims"]))]
pub(crate) struct Init {
    /// A file with a job's token; `-` is stdin. Its signature is not checked, and it is not kept.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// A file with the claims of one, as JSON; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// The policy directory; it is made where it is not there.
    #[arg(long, value_name = "DIR", default_value = "policies")]
    dir: PathBuf,
    /// The grant's name [default: the project's].
    #[arg(long, value_name = "NAME")]
    grant: Option<String>,
    /// The sealed secret that it is to yield [default: named as the grant].
    #[arg(long, value_name = "NAME")]
    secret: Option<String>,
    /// The issuer's name [default: the one whose URL is the token's `iss`].
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// How to read its tokens, where no file names the issuer yet.
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// The audience of tokens for your broker, where no file names the issuer yet [default: the token's `aud`].
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
    /// How the answer is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Whose token it is.
struct Issuer {
    name: IssuerName,
    profile: &'static Profile,
    /// Its file, where it is to be written.
    file: Option<(String, String)>,
}

impl Init {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where there is no draft to be made, [`Exit::PolicyInvalid`] where the directory holds no valid
    /// set, [`Exit::GuardrailRefuses`] where a guardrail would refuse what is drafted.
    pub(crate) fn run(self) -> Done {
        let claims = match (&self.token, &self.claims) {
            (Some(file), _) => claims::of_token(file)?,
            (None, Some(file)) => claims::of_file(file)?,
            (None, None) => return Err(Failure::usage("name a token or a file of claims")),
        };
        let (mut files, set) = self.read()?;
        let issuer = self.issuer(&claims, set.as_ref())?;
        if let Some((path, text)) = &issuer.file {
            files.0.insert(path.clone(), text.clone().into_bytes());
        }
        let grant = self.grant(&claims, issuer.profile)?;
        let secret = self.secret(&grant)?;
        if let Some(other) = set.as_ref().and_then(|set| set.grants.get(&grant)) {
            let message = format!(
                "nothing was written: the grant `{grant}` already stands in {}; choose another name by --grant",
                other.file
            );
            return Err(Failure::usage(message));
        }
        let wish = Wish {
            issuer: &issuer.name,
            profile: issuer.profile,
            claims: &claims,
            grant: &grant,
            secret: &secret,
        };
        let Draft { grant: text, test } = draft(&wish, &files).map_err(|fault| refused(&wish, fault))?;
        let mut new: Vec<(String, String)> = issuer.file.into_iter().collect();
        new.push((format!("grants/{grant}.yaml"), text));
        new.push((format!("grants/{grant}.test.yaml"), test));
        let written = write(&self.dir, &new)?;
        // Generated, and no part of the set: for the editor that the modelines lead there.
        if !self.dir.join(schema::FOLDER).exists() {
            schema::write(&self.dir)?;
        }
        self.tell(&written, &grant, &secret)
    }

    fn read(&self) -> Result<(Files, Option<PolicySet>), Failure> {
        if !self.dir.exists() {
            return Ok((Files::default(), None));
        }
        let (files, commit) = PolicySource::new(&self.dir).read().map_err(|fault| {
            Failure::new(Exit::PolicyInvalid, format!("error[{}]: {}", fault.code(), chain(&fault)))
        })?;
        if files.0.is_empty() {
            return Ok((files, None));
        }
        let loaded = load::load(&files, commit, None).map_err(|mut findings: Vec<Finding>| {
            findings.iter_mut().for_each(|each| each.file = self.dir.join(&each.file).display().to_string());
            Failure::findings(Exit::PolicyInvalid, &findings)
        })?;
        Ok((files, Some(loaded.set)))
    }

    /// The issuer of the set that signs such tokens, or a new one.
    fn issuer(&self, claims: &Map<String, Value>, set: Option<&PolicySet>) -> Result<Issuer, Failure> {
        let url = claims.get("iss").and_then(Value::as_str);
        let known = set.and_then(|set| {
            let is_meant = |name: &IssuerName, theirs: &str| match &self.issuer {
                Some(wanted) => name.as_str() == wanted,
                None => Some(theirs) == url,
            };
            set.issuers.values().map(|each| &each.trusted).find(|each| is_meant(&each.name, &each.url))
        });
        if let Some(known) = known {
            if let Some(url) = url.filter(|url| *url != known.url) {
                let message =
                    format!("the token is from {url}, and the issuer `{}` is {}", known.name, known.url);
                return Err(Failure::usage(message));
            }
            return Ok(Issuer { name: known.name.clone(), profile: known.profile, file: None });
        }
        let url = url.ok_or_else(|| {
            Failure::usage(
                "the claims have no `iss`; name the issuer of this directory that they are from by --issuer",
            )
        })?;
        self.new_issuer(url, claims.get("aud"))
    }

    fn new_issuer(&self, url: &str, aud: Option<&Value>) -> Result<Issuer, Failure> {
        let known = || profiles::ALL.iter().map(|each| each.name).collect::<Vec<_>>().join(", ");
        let profile = match &self.profile {
            Some(name) => Profile::by_name(name).ok_or_else(|| {
                Failure::usage(format!("there is no profile `{name}`; there are {}", known()))
            })?,
            None => well_known(url).ok_or_else(|| {
                let message =
                    format!("no issuer here has the URL {url}; name its profile by --profile: {}", known());
                Failure::usage(message)
            })?,
        };
        let one = match aud {
            Some(Value::Array(items)) => items.first(),
            Some(_) | None => aud,
        };
        let audience = self.audience.as_deref().or_else(|| one.and_then(Value::as_str)).ok_or_else(|| {
            Failure::usage(
                "the claims have no `aud`; name the audience of tokens for your broker by --audience",
            )
        })?;
        let name = self
            .issuer
            .as_deref()
            .unwrap_or_else(|| profile.name.strip_suffix("-actions").unwrap_or(profile.name));
        let name = IssuerName::parse(name).ok_or_else(|| no_name("--issuer", name))?;
        let text = format!(
            "# yaml-language-server: $schema=../.schemas/issuer.json\n\
             #\n\
             # Names an issuer for the grants. hallpass.yaml must trust the same name, URL and profile.\n\
             issuer: {name}\n\
             profile: {}\n\
             url: {}\n\
             audience: {}      # what jobs ask their tokens for, and nobody else does\n\
             max_token_age: 10m\n",
            profile.name,
            Value::from(url),
            Value::from(audience)
        );
        Ok(Issuer { file: Some((format!("issuers/{name}.yaml"), text)), name, profile })
    }

    fn grant(&self, claims: &Map<String, Value>, profile: &'static Profile) -> Result<GrantName, Failure> {
        let project = profile.project.and_then(|(_, name)| claims.get(name?)?.as_str());
        let name = match (&self.grant, project) {
            (Some(name), _) => name.clone(),
            (None, Some(project)) => slug(project),
            (None, None) => return Err(Failure::usage("name the grant by --grant")),
        };
        GrantName::parse(&name).ok_or_else(|| no_name("--grant", &name))
    }

    fn secret(&self, grant: &GrantName) -> Result<SecretName, Failure> {
        let name = self.secret.as_deref().unwrap_or_else(|| grant.as_str());
        SecretName::parse(name).ok_or_else(|| no_name("--secret", name))
    }

    fn tell(&self, written: &[String], grant: &GrantName, secret: &SecretName) -> Done {
        match self.output {
            Output::Human => written.iter().try_for_each(|file| output::line(file))?,
            Output::Json => output::json(&json!({
                "grant": grant.as_str(), "secret": secret.as_str(), "files": written, "signature_checked": false,
            }))?,
        }
        let dir = self.dir.display();
        output::say(&format!(
            "\nNOBODY CHECKED THE SIGNATURE of what this was drafted from: whoever wrote the claims wrote the rule.\n\
             Read every line of it.\n\
             \n\
             next:\n\
             \x20 1. say in it who answers for it, and widen the rule where more jobs may have it\n\
             \x20 2. hallpass policy test {dir} --mutate\n\
             \x20 3. hallpass secret set {secret} < FILE"
        ));
        Ok(())
    }
}

/// The profile of an issuer that everybody shares, and whose URL therefore says it.
fn well_known(url: &str) -> Option<&'static Profile> {
    match url {
        "https://token.actions.githubusercontent.com" => Profile::by_name("github-actions"),
        _ => None,
    }
}

/// The last part of a project's name, as a name of ours.
fn slug(project: &str) -> String {
    let last = project.rsplit('/').next().unwrap_or(project).to_ascii_lowercase();
    let letters = last.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    letters.take(63).collect::<String>().trim_matches('-').to_owned()
}

fn no_name(option: &str, text: &str) -> Failure {
    let message =
        format!("{text:?} is no name; write {option} with 1 to 63 of a-z, 0-9 and -, no - at an end");
    Failure::usage(message)
}

fn refused(wish: &Wish<'_>, fault: DraftFault) -> Failure {
    match fault {
        DraftFault::Trigger(word) => {
            let what = word.map_or_else(|| "no trigger that is known".to_owned(), |word| format!("{word:?}"));
            Failure::usage(format!(
                "no draft: the job was set off by {what}, which runs what strangers wrote, or could; use the token of \
                 a job that was not, such as of a push"
            ))
        }
        DraftFault::NotAToken(reason) => Failure::usage(format!(
            "no draft: no token of the profile `{}` is like this: {reason}",
            wish.profile.name
        )),
        DraftFault::Refused(findings) => Failure {
            message: format!(
                "no draft: what these claims allow to say would not be accepted\n{}",
                Failure::findings(Exit::Usage, &findings)
            ),
            ..Failure::findings(Exit::Usage, &findings)
        },
        DraftFault::Denied(reason) if reason == "guardrail" => Failure::new(
            Exit::GuardrailRefuses,
            "no draft: a guardrail of this directory refuses this job whatever a grant says; `hallpass policy explain` \
             shows which",
        ),
        DraftFault::Denied(reason) => {
            Failure::new(Exit::Internal, format!("no draft: it would deny its own job: {reason}"))
        }
        DraftFault::Unnoticed(what) => {
            Failure::new(Exit::Internal, format!("no draft: its tests would not notice {}", what.join(", ")))
        }
    }
}

/// Writes all or nothing; a file that is there is never touched.
fn write(dir: &Path, files: &[(String, String)]) -> Result<Vec<String>, Failure> {
    let mut made: Vec<PathBuf> = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        let done = path.parent().map_or(Ok(()), |folder| DirBuilder::new().recursive(true).create(folder));
        let done = done.and_then(|()| write_new(&path, text, &mut made));
        if let Err(fault) = done {
            // Best effort: the fault that stopped us is the one that is told.
            made.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(Failure::usage(format!("nothing was written: {}: {fault}", path.display())));
        }
    }
    Ok(made.iter().map(|path| path.display().to_string()).collect())
}

fn write_new(path: &Path, text: &str, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    made.push(path.to_owned());
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
