#!/bin/sh
# Furnishes a Vault for Hallpass: ACLs, the token role, AppRole for the broker, and the engines of the sample grants.
# Run it as an administrator: VAULT_ADDR, VAULT_TOKEN and, where due, VAULT_CACERT stand in the environment. Twice is once.
#
#   POSTGRES  host:port/database of a PostgreSQL with the role `vault`; without it there is no database engine
#   OUT       the folder for role-id and secret-id, which the broker reads [default: here]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here}

mounted() { vault secrets list -format=json | grep -q "\"$1/\""; }

vault policy write hallpass "$here/broker.hcl"
vault policy write hallpass-job "$here/job.hcl"

# Job tokens are orphans, so that nothing of the broker's own ends them; they never outlive an hour.
vault write auth/token/roles/hallpass orphan=true allowed_policies=hallpass-job disallowed_policies=default \
  renewable=false token_type=service token_explicit_max_ttl=1h

vault auth list -format=json | grep -q '"approle/"' || vault auth enable approle
vault write auth/approle/role/hallpass token_policies=hallpass token_ttl=1h token_max_ttl=0 secret_id_num_uses=0
umask 077
vault read -field=role_id auth/approle/role/hallpass/role-id >"$out/role-id"
vault write -f -field=secret_id auth/approle/role/hallpass/secret-id >"$out/secret-id"

mounted secret || vault secrets enable -path=secret -version=2 kv
mounted transit || vault secrets enable transit
vault write -f transit/keys/release type=ecdsa-p256
mounted pki || vault secrets enable -max-lease-ttl=87600h pki
vault read -field=certificate pki/cert/ca >/dev/null 2>&1 ||
  vault write -field=certificate pki/root/generate/internal common_name="CI root" ttl=87600h >/dev/null
# Without generate_lease: a certificate ends by itself, and nobody waits for its lease.
vault write pki/roles/ci allowed_domains=ci.example.com allow_subdomains=true max_ttl=24h key_type=any

if [ -n "${POSTGRES:-}" ]; then
  mounted database || vault secrets enable database
  vault write database/config/payments plugin_name=postgresql-database-plugin allowed_roles=payments-rw \
    connection_url="postgresql://{{username}}:{{password}}@$POSTGRES?sslmode=${SSLMODE:-verify-full}" \
    username=vault password="${POSTGRES_PASSWORD:?the password of the role vault}"
  vault write database/roles/payments-rw db_name=payments default_ttl=5m max_ttl=1h \
    creation_statements="CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
fi
