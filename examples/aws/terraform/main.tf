# The trust of one AWS account in one Hallpass, and a role that one of its grants may assume.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "issuer" {
  description = "assertions.issuer of hallpass.yaml; AWS fetches its keys there, so it is https and public"
  type        = string
  default     = "https://hallpass.example.com"
}

variable "grant" {
  description = "The grant whose jobs may have the role"
  type        = string
  default     = "payments-aws"
}

variable "team" {
  description = "The session tag `team` that the grant's policy sets"
  type        = string
  default     = "payments"
}

variable "bucket" {
  description = "What the role may write to"
  type        = string
  default     = "acme-payments-releases"
}

# One for each account. No thumbprint: AWS checks the certificate by its own authorities.
resource "aws_iam_openid_connect_provider" "hallpass" {
  url            = var.issuer
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "payments_deploy" {
  name        = "payments-deploy"
  description = "Deploys of payments, by way of Hallpass"

  # Above the longest `ttl` of the grants that reach it; AWS takes no less than an hour.
  max_session_duration = 3600

  assume_role_policy = templatefile("${path.module}/trust-policy.json", {
    provider_arn = aws_iam_openid_connect_provider.hallpass.arn
    issuer       = trimprefix(var.issuer, "https://")
    grant        = var.grant
    team         = var.team
  })
}

resource "aws_iam_role_policy" "payments_deploy" {
  name = "releases"
  role = aws_iam_role.payments_deploy.id

  policy = templatefile("${path.module}/permissions.json", {
    bucket = var.bucket
    team   = var.team
  })
}

output "role_arn" {
  description = "The `role_arn` of the credential in the grant"
  value       = aws_iam_role.payments_deploy.arn
}
