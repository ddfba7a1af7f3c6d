// Verifies Hallpass's assertions as a relying party does that has never heard of it: a JOSE library that is not ours
// (npm jose), keys by discovery from the public listener.
//
// Arguments: where the public listener is, and the issuer that it should call itself. For each line on stdin,
// {"token": JWT, "audience": TEXT}, it prints a line with {"payload": …, "header": …} or {"refused": CODE}. "at" (seconds)
// asks as of another time; "fresh": true first forgets the keys that it has, as a cache does one day.

import { createInterface } from 'node:readline'
import { createRemoteJWKSet, customFetch, jwtVerify } from 'jose'

const [listener, issuer] = process.argv.slice(2)
// The issuer's name resolves to the listener, as it would by DNS.
const local = (url, options) => fetch(String(url).replace(issuer, listener), options)

const metadata = await (await local(`${issuer}/.well-known/openid-configuration`)).json()
if (metadata.issuer !== issuer) throw new Error(`discovery says ${metadata.issuer}`)
const remote = () => createRemoteJWKSet(new URL(metadata.jwks_uri), { [customFetch]: local, cooldownDuration: 0 })
let keys = remote()
const algorithms = metadata.id_token_signing_alg_values_supported

for await (const line of createInterface({ input: process.stdin })) {
  const { token, audience, at, fresh } = JSON.parse(line)
  if (fresh) keys = remote()
  const currentDate = at === undefined ? undefined : new Date(at * 1000)
  const requiredClaims = ['sub', 'iat', 'exp', 'jti']
  const rules = { issuer, audience, algorithms, requiredClaims, maxTokenAge: '300s', currentDate }
  const answer = await jwtVerify(token, keys, rules).then(
    ({ payload, protectedHeader }) => ({ payload, header: protectedHeader }),
    (fault) => ({ refused: fault.code ?? String(fault) }),
  )
  console.log(JSON.stringify(answer))
}
