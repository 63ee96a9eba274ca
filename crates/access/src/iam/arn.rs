/// The region and account in the ARNs of this gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arns {
    region: Box<str>,
    account_id: Box<str>,
}

impl Arns {
    /// Builds ARNs with `region` and `account_id`.
    pub fn new(region: &str, account_id: &str) -> Self {
        Arns { region: region.into(), account_id: account_id.into() }
    }

    pub(super) fn account_id(&self) -> &str {
        &self.account_id
    }

    /// Returns the ARN of a stage's `$connect` route: the resource of a client that connects, and `methodArn`.
    pub fn connect(&self, api_id: &str, stage: &str) -> String {
        let Arns { region, account_id } = self;
        format!("arn:aws:execute-api:{region}:{account_id}:{api_id}/{stage}/$connect")
    }

    /// Returns the ARN of the resource of a backend's call. `path` is the path below the stage, such as
    /// `/@connections/{connectionId}`: AWS evaluates that very text, never a real id.
    pub(super) fn callback(&self, api_id: &str, stage: &str, method: &str, path: &str) -> String {
        let Arns { region, account_id } = self;
        format!("arn:aws:execute-api:{region}:{account_id}:{api_id}/{stage}/{method}{path}")
    }

    /// Hides all but the last four digits of the account in `arn`, as AWS's errors do.
    pub(super) fn masked(&self, arn: &str) -> String {
        let shown = self.account_id.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
        arn.replacen(&*self.account_id, &format!("{}{}", "*".repeat(shown), &self.account_id[shown..]), 1)
    }

    /// Returns the ARN of the user that the credential `name` stands for.
    pub(super) fn user(&self, name: &str) -> String {
        format!("arn:aws:iam::{}:user/{name}", self.account_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_written_as_aws_writes_them() {
        let arns = Arns::new("us-east-1", "123456789012");
        assert_eq!(arns.connect("chat", "prod"), "arn:aws:execute-api:us-east-1:123456789012:chat/prod/$connect");
        let posted = arns.callback("chat", "prod", "POST", "/@connections/{connectionId}");
        assert_eq!(posted, "arn:aws:execute-api:us-east-1:123456789012:chat/prod/POST/@connections/{connectionId}");
        assert!(arns.masked(&posted).starts_with("arn:aws:execute-api:us-east-1:********9012:chat/prod/"));
        assert_eq!(arns.user("backend"), "arn:aws:iam::123456789012:user/backend");
    }
}
