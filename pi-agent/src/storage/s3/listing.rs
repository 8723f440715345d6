//! A listing, page by page, until its end: a server's mistake, or its malice, gives none.

use std::collections::HashMap;

use reqwest::Method;
use s3::serde_types::ListBucketResult;

use super::S3;
use crate::storage::meter::Operation;
use crate::{Error, Result};

/// Bytes of a page of a listing: a thousand names, each of a KiB, of which each byte may be six in XML.
const LISTING: usize = 8 << 20;
/// Objects of a listing: of a repository of 3 TB, in packs of our size. Their names take 130 MB of memory.
const MOST_OBJECTS: usize = 1_000_000;
/// Pages of a listing, one after the other, in which there is nothing.
const MOST_EMPTY: u32 = 100;

impl S3 {
    pub(in crate::storage) fn list(&self, prefix: &str, after: &str) -> Result<Vec<(String, u64)>> {
        let (mut found, mut empty, mut token) = (Vec::new(), 0, None);
        loop {
            let page = self.request(Operation::List, prefix, async |what, prefix, _| {
                let mut queries =
                    HashMap::from([("list-type".to_owned(), "2".to_owned()), ("prefix".to_owned(), prefix.to_owned())]);
                if let Some(token) = &token {
                    queries.insert("continuation-token".into(), String::clone(token));
                } else if !after.is_empty() {
                    queries.insert("start-after".into(), format!("{}{after}", self.prefix));
                }
                let request = self.inner.signed(Method::GET, "/", Some(queries)).await?;
                let response = self.inner.send(what, request).await?;
                let body = self.inner.body(what, response, LISTING).await?;
                // What is not a whole listing may be half an answer: it is asked for again.
                let text = std::str::from_utf8(&body)
                    .map_err(|error| Error::transient(format!("{what}: the answer is no listing")).caused_by(error))?;
                quick_xml::de::from_str::<ListBucketResult>(text)
                    .map_err(|error| Error::transient(format!("{what}: the answer is no listing")).caused_by(error))
            })?;
            empty = if page.contents.is_empty() { empty + 1 } else { 0 };
            for object in page.contents {
                let key = object.key.strip_prefix(&self.prefix).ok_or_else(|| {
                    Error::new(format!(
                        "list {}{prefix}: the server answered with the foreign key {:?}",
                        self.prefix, object.key
                    ))
                })?;
                // Some consoles make "folders": empty objects whose names end so. And some servers begin at the beginning.
                if !key.is_empty() && !key.ends_with('/') && key > after {
                    found.push((key.to_owned(), object.size));
                }
            }
            token = match (page.is_truncated, page.next_continuation_token) {
                (false, _) => return Ok(found),
                (true, Some(next))
                    if token.as_ref() != Some(&next) && found.len() < MOST_OBJECTS && empty < MOST_EMPTY =>
                {
                    Some(next)
                }
                (true, Some(_)) => {
                    let message = format!(
                        "list {}{prefix}: the server's listing has no end after {} objects",
                        self.prefix,
                        found.len()
                    );
                    return Err(Error::new(message).hint("is that the right server and bucket? check [storage]"));
                }
                (true, None) => {
                    return Err(Error::new(format!("list {}{prefix}: the server cut the listing short", self.prefix)));
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_listing_panics() {
        const PAGE: &str = "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><Prefix>p/</Prefix><KeyCount>1</KeyCount>\
            <MaxKeys>1000</MaxKeys><IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;</NextContinuationToken>\
            <Contents><Key>p/data/00</Key><LastModified>2026-11-20T03:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag>\
            <Size>12</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>";
        assert!(quick_xml::de::from_str::<ListBucketResult>(PAGE).is_ok());
        crate::fuzzed::fuzz_text(&[PAGE], |page| drop(quick_xml::de::from_str::<ListBucketResult>(page)));
    }
}
