//! What the demo does, and how it tells it: at most forty lines, each of something that truly happened.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    job::GRANT,
    scene::{Answered, Scene, broken},
    verifier::{self, Verdicts},
};
use crate::{
    broker::audit,
    cli::exit::{Exit, Failure},
    kernel::ledger::verify::{Anchor, Report, Verdict},
};

/// The branch that the policy does not name.
const OTHER_REF: &str = "refs/heads/try-it";

/// Plays the exchanges, and tells them.
pub(super) async fn tell(scene: &Scene) -> Result<String, Failure> {
    let claims = scene.claims(&[])?;
    let token = scene.mint(&claims)?;
    let permitted = scene.exchange(&token).await?;
    let refused = scene.exchange(&scene.mint(&scene.claims(&[("ref", OTHER_REF)])?)?).await?;
    let replayed = scene.exchange(&token).await?;
    let (audience, verdicts) = the_verifier(&permitted, scene).await?;
    let entries = entries(scene).await?;
    let report = verify(scene, &permitted).await?;
    if !matches!(report.verdict, Verdict::Anchored) {
        let what = report.verdict.as_str();
        return Err(Failure::new(Exit::Integrity, format!("the demo's own ledger is {what}: {report:?}")));
    }
    let mut lines = vec![
        "hallpass demo: a CI issuer, a broker and its ledger in one process, on loopback only".to_owned(),
        String::new(),
    ];
    lines.extend(the_job(&claims, scene));
    lines.extend(the_permit(&permitted, &entries, scene)?);
    lines.extend(the_check(&audience, &verdicts));
    lines.extend(the_refusal(&refused, &entries)?);
    lines.extend(the_replay(&replayed)?);
    lines.push("THE LEDGER has an entry of each, durable before a byte of a secret left:".to_owned());
    lines.extend(entries.iter().zip(0..).map(|(entry, index)| entry_line(index, entry)));
    lines.push(format!(
        "VERIFIED offline: {} entries of {}, {} by the receipt that the job was given",
        report.size,
        report.origin,
        report.verdict.as_str()
    ));
    lines.push(String::new());
    Ok(lines.join("\n"))
}

/// The commands to paste next; they work while the demo runs.
pub(super) fn what_to_try(scene: &Scene) -> String {
    let hallpass = std::env::args().next().unwrap_or_else(|| "hallpass".to_owned());
    format!(
        "\nTRY NEXT, while this runs (Ctrl-C ends it and removes {}):\n\
         \x20 {hallpass} get {GRANT} --reveal --url {} --token-file {}\n\
         \x20 {hallpass} ledger verify --config {} --key {}\n",
        scene.folder().display(),
        scene.url,
        scene.token_file().display(),
        scene.config_file().display(),
        scene.key
    )
}

fn the_job(claims: &Map<String, Value>, scene: &Scene) -> [String; 5] {
    let claim = |name: &str| text(claims.get(name));
    [
        format!("A JOB asks for {GRANT}. Its CI system says of it, signed:"),
        format!(
            "  repository {} (id {}, owner {}), {}, {} by {}",
            claim("repository"),
            claim("repository_id"),
            claim("repository_owner_id"),
            claim("ref"),
            claim("event_name"),
            claim("actor")
        ),
        format!("  environment {}, run {}/{}", claim("environment"), claim("run_id"), claim("run_attempt")),
        format!("  job_workflow_ref {}", claim("job_workflow_ref")),
        format!("  for the audience {}, good until {}", scene.url, moment(claims.get("exp"))),
    ]
}

fn the_permit(answer: &Answered, entries: &[Value], scene: &Scene) -> Result<Vec<String>, Failure> {
    let intent = entries.iter().find(|entry| text(entry.get("code")) == "INTENT");
    let policy = intent.and_then(|entry| entry.get("policy")).ok_or_else(|| broken("its own INTENT"))?;
    let mut lines = vec![
        format!("PERMITTED: {} {}", status(answer, 200)?, text(answer.body.get("decision_id"))),
        format!(
            "  by rule {} in policies/{} (set {:.12})",
            text(policy.get("rule")),
            text(policy.get("file")),
            scene.policy
        ),
    ];
    let issuances = answer.body.get("issuances").and_then(Value::as_array);
    for issuance in issuances.ok_or_else(|| broken("the answer"))? {
        lines.push(credential(issuance)?);
    }
    Ok(lines)
}

/// The job shows its assertion to the service that it is for.
async fn the_verifier(answer: &Answered, scene: &Scene) -> Result<(String, Verdicts), Failure> {
    let issuances = answer.body.get("issuances").and_then(Value::as_array);
    let is_assertion = |issuance: &&Value| text(issuance.get("kind")) == "oidc";
    let assertion = issuances.and_then(|issuances| issuances.iter().find(is_assertion));
    let token = assertion.and_then(|assertion| assertion.pointer("/fields/token")).and_then(Value::as_str);
    let token = token.ok_or_else(|| broken("the answer"))?;
    let audience = text(claims_of(token).ok_or_else(|| broken("the assertion"))?.get("aud"));
    let verdicts = verifier::ask(scene, token, &audience).await?;
    Ok((audience, verdicts))
}

/// What a token says, unverified: the service knows its own name, and the demo does not.
fn claims_of(token: &str) -> Option<Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn the_check(audience: &str, verdicts: &Verdicts) -> [String; 2] {
    let Verdicts { subject, then, refusal } = verdicts;
    [
        format!("CHECKED by a verifier that knows the issuer's URL only, for {audience}:"),
        format!("  now it accepts the assertion, as {subject}; as of {then} it refuses it: {refusal}"),
    ]
}

/// One credential: its secret masked, its lifetime told as it is.
fn credential(issuance: &Value) -> Result<String, Failure> {
    let fields = issuance.get("fields").and_then(Value::as_object).ok_or_else(|| broken("the answer"))?;
    let masked: Vec<String> = fields
        .iter()
        .map(|(name, value)| {
            format!("{name} {}********", text(Some(value)).chars().take(4).collect::<String>())
        })
        .collect();
    let end = match (text(issuance.get("lifetime")).as_str(), issuance.get("expires_at")) {
        ("static", _) => "static: it never ends by itself, so somebody must change it one day".to_owned(),
        (lifetime, until) => {
            format!("{lifetime}: signed for this grant, worth nothing after {}", text(until))
        }
    };
    Ok(format!("  {:<9} {}  {end}", text(issuance.get("credential")), masked.join(", ")))
}

fn the_refusal(answer: &Answered, entries: &[Value]) -> Result<Vec<String>, Failure> {
    let decision = answer.body.get("decision_id");
    let denied = entries.iter().find(|entry| entry.get("decision") == decision);
    let tried =
        denied.and_then(|entry| entry.pointer("/result/tried/0")).ok_or_else(|| broken("its own DENIED"))?;
    let failed = tried.get("failed").map_or_else(String::new, Value::to_string);
    Ok(vec![
        format!("REFUSED: {} {}, the same job on {OTHER_REF}", status(answer, 403)?, text(answer.body.get("code"))),
        "  It is told no more, and the same of a grant that does not exist: whoever probes learns nothing of policy."
            .to_owned(),
        format!("  The ledger knows it all: rule {}, failed {failed}, {}", text(tried.get("rule")), text(decision)),
    ])
}

fn the_replay(answer: &Answered) -> Result<Vec<String>, Failure> {
    Ok(vec![
        format!("REPLAYED: {} {}, the first token again", status(answer, 409)?, text(answer.body.get("code"))),
        "  Whoever steals a used token has nothing: each is good once for a credential, also after a restart."
            .to_owned(),
    ])
}

async fn entries(scene: &Scene) -> Result<Vec<Value>, Failure> {
    let rows = scene.store().ledger_rows(0, 100).await?;
    rows.iter().map(|row| serde_json::from_slice(&row.bytes).map_err(|_| broken("its own ledger"))).collect()
}

fn entry_line(index: u64, entry: &Value) -> String {
    let at = |path: &str| text(entry.pointer(path));
    let code = at("/code");
    let what = match code.as_str() {
        "SECRET_SET" => format!("{}, version {}", at("/result/secret"), at("/result/version")),
        "POLICY_LOADED" => format!("{} issuer, {} grants", at("/result/issuers"), at("/result/grants")),
        "CONFIG_LOADED" => at("/result/url"),
        "STARTED" => format!("hallpass {}", at("/result/version")),
        "INTENT" => format!("{GRANT}/{} by {}", at("/request/credential"), at("/policy/rule")),
        "ISSUED" => format!("{GRANT}/{}, {}", at("/request/credential"), at("/result/lifetime")),
        "DENIED" => at("/result/code"),
        _ => String::new(),
    };
    format!("  {index:>3} {code:<14} {what}")
}

/// Verifies the live database with the key that was noted at the beginning and the receipt that the job was given.
async fn verify(scene: &Scene, permitted: &Answered) -> Result<Report, Failure> {
    let receipts = permitted.body.get("receipts").and_then(Value::as_array);
    let receipt = receipts.and_then(|receipts| receipts.last()).ok_or_else(|| broken("the receipts"))?;
    let anchor = Anchor { name: "the receipt".to_owned(), bytes: receipt.to_string().into_bytes() };
    Ok(audit::of_store(scene.store(), Some(scene.key.clone()), vec![anchor]).await?)
}

fn status(answer: &Answered, due: u16) -> Result<u16, Failure> {
    if answer.status == due {
        return Ok(due);
    }
    let message = format!("the broker answered {} where {due} was due: {}", answer.status, answer.body);
    Err(Failure::new(Exit::Internal, message))
}

fn moment(seconds: Option<&Value>) -> String {
    let moment = seconds.and_then(Value::as_i64).and_then(|second| jiff::Timestamp::from_second(second).ok());
    moment.map_or_else(String::new, |moment| moment.to_string())
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(value) => value.to_string(),
    }
}
