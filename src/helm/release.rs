//! The release as Helm 3 and 4 store it (helm/helm, `pkg/storage/driver/util.go` and `pkg/release`).
//!
//! No error may quote what it could not read: `serde_json` and the YAML reader would.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::fmt;
use std::io::Read;

/// Most bytes that a release may have unpacked: a Secret holds 1 MiB, of which gzip could make a thousand times that.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of values that are read: as a tree they take many times that.
const MAX_VALUES: usize = 4 * 1024 * 1024;
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];

/// One revision of a release.
#[derive(Clone, PartialEq)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// The namespace that it is installed in.
    pub namespace: String,
    /// Its number, from 1.
    pub revision: u32,
    /// What Helm says of it.
    pub status: Status,
    /// When Helm last wrote to the cluster for it, where that can be read.
    pub last_deployed: Option<Timestamp>,
    /// What it was made of.
    pub chart: Chart,
    /// The chart's values with the release's own over them. They hold secrets.
    pub values: Value,
    /// The objects of its manifest, which `helm uninstall` would delete; without hooks.
    pub objects: Vec<Object>,
}

/// Tells no value.
impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release").field("name", &self.name).field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// A chart.
#[derive(Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Chart {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.version)
    }
}

/// What Helm says of a revision (helm/helm, `pkg/release/status.go`). None tells how the Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its manifest was applied.
    Deployed,
    /// A newer revision took its place.
    Superseded,
    /// Helm gave up: its objects may be there all the same.
    Failed,
    /// Its objects are being deleted.
    Uninstalling,
    /// Its objects were deleted, its history was kept.
    Uninstalled,
    /// `pending-install`, `pending-upgrade` or `pending-rollback`: Helm is at it, or died there.
    Pending(String),
    /// Any other word.
    Other(String),
}

impl From<String> for Status {
    fn from(word: String) -> Self {
        match word.as_str() {
            "deployed" => Self::Deployed,
            "superseded" => Self::Superseded,
            "failed" => Self::Failed,
            "uninstalling" => Self::Uninstalling,
            "uninstalled" => Self::Uninstalled,
            "pending-install" | "pending-upgrade" | "pending-rollback" => Self::Pending(word),
            _ => Self::Other(word),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deployed => "deployed",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
            Self::Uninstalling => "uninstalling",
            Self::Uninstalled => "uninstalled",
            Self::Pending(word) | Self::Other(word) => word,
        })
    }
}

/// An object of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; the release's where absent.
    pub namespace: Option<String>,
    /// Whether `helm uninstall` leaves it.
    pub keep: bool,
}

/// Of the revisions of one release (number and status) the one that says what runs: the newest that is deployed, else
/// the newest.
#[must_use]
pub fn governing(revisions: &[(u32, &str)]) -> Option<u32> {
    revisions.iter().max_by_key(|(revision, status)| (*status == "deployed", *revision)).map(|(revision, _)| *revision)
}

/// Reads `data.release`: as a ConfigMap has it, or a Secret once its own base64 is taken off.
pub fn decode(payload: &[u8]) -> Result<Release, String> {
    let packed = STANDARD.decode(payload.trim_ascii()).map_err(|_| "is not base64")?;
    let json = if packed.starts_with(&GZIP) { unpack(&packed, MAX_BYTES)? } else { packed };
    let stored: Stored<'_> = serde_json::from_slice(&json)
        .map_err(|e| format!("is not a release's JSON at line {}, column {}", e.line(), e.column()))?;
    let mut values = map(stored.chart.values)?;
    overlay(&mut values, map(stored.config)?);
    Ok(Release {
        name: stored.name,
        namespace: stored.namespace,
        revision: stored.version,
        status: stored.info.status.into(),
        last_deployed: stored.info.last_deployed.and_then(|time| time.parse().ok()),
        chart: stored.chart.metadata,
        values: Value::Object(values),
        objects: objects(&stored.manifest)?,
    })
}

fn unpack(packed: &[u8], most: usize) -> Result<Vec<u8>, String> {
    let mut json = vec![];
    let mut bounded = GzDecoder::new(packed).take(most as u64 + 1);
    bounded.read_to_end(&mut json).map_err(|_| "is not whole: gzip cannot unpack it")?;
    match json.len() > most {
        true => Err(format!("has more than {} MiB unpacked", most >> 20)),
        false => Ok(json),
    }
}

/// What is read of a release's JSON.
#[derive(Deserialize)]
struct Stored<'a> {
    name: String,
    namespace: String,
    version: u32,
    info: Info,
    #[serde(borrow)]
    chart: StoredChart<'a>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(default)]
    manifest: String,
}

#[derive(Deserialize)]
struct Info {
    status: String,
    last_deployed: Option<String>,
}

#[derive(Deserialize)]
struct StoredChart<'a> {
    metadata: Chart,
    #[serde(borrow)]
    values: Option<&'a RawValue>,
}

/// Values; none where they are null.
fn map(json: Option<&RawValue>) -> Result<Map<String, Value>, String> {
    let json = json.map_or("{}", RawValue::get);
    match json.len() > MAX_VALUES {
        true => Err(format!("has more than {} MiB of values", MAX_VALUES >> 20)),
        false => serde_json::from_str(json).map_err(|_| "has values that are not a map".to_owned()),
    }
}

/// Lays a release's own values over its chart's, as Helm does (`pkg/chart/common/util/coalesce.go`): maps are merged,
/// null deletes, all else replaces.
fn overlay(values: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (values.get_mut(&key), value) {
            (_, Value::Null) => _ = values.remove(&key),
            (Some(Value::Object(below)), Value::Object(above)) => overlay(below, above),
            (_, value) => _ = values.insert(key, value),
        }
    }
}

/// The objects of a manifest.
fn objects(manifest: &str) -> Result<Vec<Object>, String> {
    const UNREADABLE: &str = "has a manifest that cannot be read";
    // as Helm reads it, which takes a key that stands twice
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    let documents = serde_saphyr::from_multiple_with_options::<Value>(manifest, options).map_err(|_| UNREADABLE)?;
    documents.iter().map(|document| object(document).ok_or_else(|| UNREADABLE.to_owned())).collect()
}

fn object(document: &Value) -> Option<Object> {
    let text = |pointer| Some(document.pointer(pointer)?.as_str()?.to_owned());
    Some(Object {
        api_version: text("/apiVersion")?,
        kind: text("/kind")?,
        name: text("/metadata/name")?,
        namespace: text("/metadata/namespace"),
        keep: text("/metadata/annotations/helm.sh~1resource-policy").is_some_and(|policy| policy.trim() == "keep"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pack, stored};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const KEY: &str = "sk-ant-plain";

    #[test]
    fn a_release_is_read_packed_or_plain() {
        let json = serde_json::to_vec(&stored()).expect("JSON");
        let plain = STANDARD.encode(&json);
        for payload in [pack(&json), plain.clone().into(), format!("{plain}\n").into()] {
            let release = decode(&payload).expect("a release");
            assert_eq!((&*release.name, &*release.namespace), ("auth-service-task-1001", "orchestrator"));
            assert_eq!((release.revision, &release.status), (1, &Status::Deployed));
            assert_eq!(release.chart.to_string(), "claude-code-0.2.0");
            let time = release.last_deployed.expect("a time");
            assert_eq!(time.to_string(), "2025-07-14T08:00:00.5Z", "RFC 3339 with an offset");
            assert_eq!(release.values["taskId"], "1001");
            let kinds: Vec<&str> = release.objects.iter().map(|object| object.kind.as_str()).collect();
            assert_eq!(kinds, ["ServiceAccount", "Secret", "Job"]);
        }
    }

    #[test]
    fn what_may_be_absent_is_absent() {
        let json = json!({
            "name": "a", "namespace": "n", "version": 3, "chart": {"metadata": {"name": "c"}}, "config": null,
            "info": {"status": "dreaming", "last_deployed": ""},
        });
        let release = decode(&pack(json.to_string().as_bytes())).expect("a release");
        assert_eq!(release.status, Status::Other("dreaming".to_owned()));
        assert_eq!((release.last_deployed, &release.values, release.objects.len()), (None, &json!({}), 0));
    }

    #[test]
    fn values_are_laid_over_the_charts_as_helm_does() {
        let mut values = json!({"a": 1, "gone": {"x": 1}, "map": {"x": 1, "y": {"z": 2}, "gone": 3}, "now": {"k": 1}});
        let over = json!({"a": "new", "gone": null, "map": {"y": {"w": 4}, "gone": null}, "now": [1], "own": {"n": 5}});
        let (Value::Object(below), Value::Object(above)) = (&mut values, over) else { panic!("maps") };
        overlay(below, above);
        let expected = json!({"a": "new", "map": {"x": 1, "y": {"z": 2, "w": 4}}, "now": [1], "own": {"n": 5}});
        assert_eq!(values, expected);
    }

    #[test]
    fn trap_2_the_policy_to_keep_is_read_from_the_stored_manifest() {
        let read = |policy: &str| {
            let manifest = format!("kind: Job\napiVersion: batch/v1\nmetadata: {{name: a, annotations: {{{policy}}}}}");
            objects(&manifest).expect("a manifest")[0].keep
        };
        assert!(read("helm.sh/resource-policy: keep") && read("helm.sh/resource-policy: ' keep '"));
        assert!(!read("") && !read("helm.sh/resource-policy: delete") && !read("helm.sh/resource-policy: 1"));
    }

    #[test]
    fn trap_8_no_error_and_no_debug_tells_a_value() {
        let broken = |change: fn(&mut Value)| {
            let mut json = stored();
            change(&mut json);
            decode(&pack(json.to_string().as_bytes())).expect_err("broken")
        };
        for error in [
            broken(|json| json["version"] = KEY.into()),
            broken(|json| json["config"] = KEY.into()),
            broken(|json| json["manifest"] = format!("kind: Secret\n  {KEY}: [").into()),
            broken(|json| json["manifest"] = format!("{KEY}\n").into()),
            broken(|json| json["manifest"] = format!("kind: Secret\nstringData: {{k: {KEY}}}\n").into()),
            decode(KEY.as_bytes()).expect_err("not base64"),
            decode(STANDARD.encode(KEY).as_bytes()).expect_err("not JSON"),
        ] {
            assert!(!error.contains("sk-ant"), "{error}");
        }
        let release = decode(&pack(stored().to_string().as_bytes())).expect("a release");
        assert!(release.values.to_string().contains(KEY) && !format!("{release:#?}").contains("sk-ant"));
    }

    #[test]
    fn a_bomb_is_unpacked_to_its_bound_and_no_further() {
        let bomb = STANDARD.decode(pack(&vec![b' '; 4 << 20])).expect("base64");
        assert!(bomb.len() < 64 << 10, "it is small: {}", bomb.len());
        assert_eq!(unpack(&bomb, 4 << 20).expect("all of it").len(), 4 << 20);
        assert_eq!(unpack(&bomb, (4 << 20) - 1).expect_err("a bomb"), "has more than 3 MiB unpacked");
        let mut many = stored();
        many["config"]["zeros"] = vec![0; 3 << 20].into();
        let payload = pack(many.to_string().as_bytes());
        assert_eq!(decode(&payload).expect_err("a tree"), "has more than 4 MiB of values");
        let more: Vec<String> = (1..40).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]", i - 1)).collect();
        assert!(objects(&format!("a0: &a0 [x]\n{}", more.join("\n"))).is_err(), "a billion laughs");
        assert!(decode(&pack("[".repeat(1_000_000).as_bytes())).is_err(), "deep JSON");
        assert!(objects(&"[".repeat(100_000)).is_err(), "deep YAML");
    }

    #[test]
    fn the_newest_deployed_revision_governs() {
        for (revisions, governs) in [
            (&[][..], None),
            (&[(1, "deployed")], Some(1)),
            (&[(3, "superseded"), (10, "deployed"), (9, "superseded")], Some(10)),
            (&[(1, "deployed"), (2, "failed"), (3, "pending-upgrade")], Some(1)),
            (&[(1, "deployed"), (2, "deployed")], Some(2)),
            (&[(2, "uninstalled"), (1, "superseded")], Some(2)),
        ] {
            assert_eq!(governing(revisions), governs, "{revisions:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..2_000_usize) {
            let _ = decode(&bytes);
            let _ = decode(STANDARD.encode(&bytes).as_bytes());
            let _ = decode(&pack(&bytes));
            let _ = objects(&String::from_utf8_lossy(&bytes));
            let whole = STANDARD.decode(pack(stored().to_string().as_bytes())).expect("base64");
            let mut torn = whole[..cut.min(whole.len())].to_vec();
            torn.extend(bytes);
            let _ = decode(STANDARD.encode(torn).as_bytes());
        }
    }
}
