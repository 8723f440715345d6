//! What to set on the bucket, as lines to paste: the rights of this machine's key, and what protects the bucket from it.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::S3Location;

/// How long a deleted or overwritten object can still be fetched back, in days.
const NONCURRENT_DAYS: u32 = 30;

/// The least that backups need: this prefix only, and no right to delete a version for good. With versioning on, whoever
/// takes this machine over can then hide backups, and not destroy them.
pub fn policy(s3: &S3Location) -> Value {
    let bucket = format!("arn:aws:s3:::{}", s3.bucket);
    let below = match s3.prefix.as_str() {
        "" => "*".to_owned(),
        prefix => format!("{prefix}/*"),
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ListThisPlace",
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [bucket],
                "Condition": { "StringLike": { "s3:prefix": [below] } },
            },
            {
                "Sid": "ReadAndWriteThisPlace",
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject", "s3:PutObject", "s3:DeleteObject",
                    "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts",
                ],
                "Resource": [format!("{bucket}/{below}")],
            },
        ],
    })
}

/// What pgBackRest needs for a database: its step's place, and whose the whole place is.
pub fn policy_of_database(s3: &S3Location, step: &str) -> Value {
    let below = |name: &str| if s3.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", s3.prefix) };
    let of_step = S3Location { prefix: below(step), ..s3.clone() };
    let mut policy = policy(&of_step);
    if let Some(statements) = policy["Statement"].as_array_mut() {
        statements.push(json!({
            "Sid": "ReadWhosePlaceItIs",
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": [format!("arn:aws:s3:::{}/{}", s3.bucket, below("host.json"))],
        }));
    }
    policy
}

/// The rules of the whole bucket: several machines may share it, and the call replaces all rules there are.
fn lifecycle() -> Value {
    json!({ "Rules": [{
        "ID": "pi-agent",
        "Status": "Enabled",
        "Filter": { "Prefix": "" },
        "NoncurrentVersionExpiration": { "NoncurrentDays": NONCURRENT_DAYS },
        "Expiration": { "ExpiredObjectDeleteMarker": true },
        "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 7 },
    }] })
}

/// The whole section, for a person with the AWS command line on another machine.
pub fn text(s3: &S3Location, host: &str, secrets: &Path, databases: &[&str]) -> String {
    let S3Location { bucket, region, endpoint, .. } = s3;
    let aws = match endpoint {
        Some(endpoint) => format!("aws --endpoint-url {endpoint}"),
        None => "aws".into(),
    };
    let place = match region.as_str() {
        "us-east-1" => String::new(),
        _ => format!(" \\\n    --create-bucket-configuration LocationConstraint={region}"),
    };
    let encryption = r#"{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}]}"#;
    let block = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true";
    let (policy, lifecycle) = (policy(s3), lifecycle());
    let note = match endpoint {
        Some(_) => "This server is not AWS: set what it knows of these, in its own way.\n",
        None => "",
    };
    let keys_of_machine = key(&format!("pi-agent-{host}"), &policy);
    let keys_of_databases = databases.iter().map(|step| {
        let file = secrets.join(format!("aws-{step}.env"));
        format!(
            "
A superuser of a database can read the key that pgBackRest is given. So that it opens nothing but the backups of the step {step}, make one of
its own with this policy, and write it to {}, 0600, before pi-agent setup is done or done again:

{}",
            file.display(),
            key(&format!("pi-agent-{host}-{step}"), &policy_of_database(s3, step))
        )
    });
    let keys_of_databases: String = keys_of_databases.collect();
    format!(
        "\
The bucket, once, with an administrator's keys, and not from this machine. Versions of deleted and replaced objects
stay {NONCURRENT_DAYS} days; this machine's key cannot delete them, so that even a thief of it cannot destroy the backups.
{note}
{aws} s3api create-bucket --bucket {bucket} --region {region}{place}
{aws} s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled
{aws} s3api put-public-access-block --bucket {bucket} \\
    --public-access-block-configuration {block}
{aws} s3api put-bucket-encryption --bucket {bucket} \\
    --server-side-encryption-configuration '{encryption}'
# This replaces the bucket's other lifecycle rules, if it has any:
{aws} s3api put-bucket-lifecycle-configuration --bucket {bucket} \\
    --lifecycle-configuration '{lifecycle}'

A key for this machine alone, with this policy:

{keys_of_machine}{keys_of_databases}"
    )
}

/// A user with that policy, and its key.
fn key(user: &str, policy: &Value) -> String {
    format!(
        "\
cat > {user}.json <<'END'
{policy:#}
END
aws iam create-user --user-name {user}
aws iam put-user-policy --user-name {user} --policy-name pi-agent \\
    --policy-document file://{user}.json
aws iam create-access-key --user-name {user}
"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(prefix: &str) -> S3Location {
        S3Location {
            bucket: "example-bucket".into(),
            prefix: prefix.into(),
            region: "ap-southeast-2".into(),
            endpoint: None,
            path_style: false,
            ca_file: None,
        }
    }

    #[test]
    fn the_key_may_do_only_what_backups_do_and_only_there() {
        let policy = policy(&place("a/pi-hosting"));
        assert_eq!(policy["Statement"][0]["Condition"]["StringLike"]["s3:prefix"][0], "a/pi-hosting/*");
        assert_eq!(policy["Statement"][1]["Resource"][0], "arn:aws:s3:::example-bucket/a/pi-hosting/*");
        let all = policy.to_string();
        assert!(!all.contains("Version\"") || !all.contains("s3:DeleteObjectVersion"));
        assert!(!all.contains("s3:*") && !all.contains("PutLifecycle"));
        assert_eq!(super::policy(&place(""))["Statement"][1]["Resource"][0], "arn:aws:s3:::example-bucket/*");
    }

    #[test]
    fn a_databases_key_opens_its_own_place_and_says_whose_all_of_it_is() {
        let policy = policy_of_database(&place("a/pi"), "database");
        let resource = |statement: usize| policy["Statement"][statement]["Resource"][0].as_str().unwrap().to_owned();
        assert_eq!(policy["Statement"][0]["Condition"]["StringLike"]["s3:prefix"][0], "a/pi/database/*");
        assert_eq!(resource(1), "arn:aws:s3:::example-bucket/a/pi/database/*");
        assert_eq!(resource(2), "arn:aws:s3:::example-bucket/a/pi/host.json");
        assert_eq!(policy["Statement"][2]["Action"], json!(["s3:GetObject"]));
        assert!(policy_of_database(&place(""), "database").to_string().contains("example-bucket/database/*"));
    }

    #[test]
    fn the_lines_to_paste_are_shell_and_hold_what_protects() {
        let text = text(&place("pi-hosting"), "pi-hosting", Path::new("/etc/pi-agent/secrets"), &["database"]);
        for part in [
            "Status=Enabled",
            "\"NoncurrentDays\":30",
            "RestrictPublicBuckets=true",
            "LocationConstraint=ap-southeast-2",
            "\"Sid\": \"ListThisPlace\"",
            "put-user-policy --user-name pi-agent-pi-hosting ",
            "put-user-policy --user-name pi-agent-pi-hosting-database ",
            "/etc/pi-agent/secrets/aws-database.env",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("DeleteObjectVersion"));
    }
}
