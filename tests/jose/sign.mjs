// A CI system whose tokens are signed by a JOSE library that is not ours (npm jose). It publishes its keys, one of
// each kind, by discovery on loopback.
//
// It prints a line with {"url": …, "library": …}, then answers each line on stdin, {"alg": NAME, "claims": {…}}, with
// {"token": JWT}. The line may hold "header" (more members), "kid" (another key's name) and "stranger" (true: sign by
// a key of the same kind that is not published). It ends with stdin.

import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'

const pairs = {}
const keys = []
for (const alg of ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA']) {
  const [own, stranger] = await Promise.all([generateKeyPair(alg), generateKeyPair(alg)])
  pairs[alg] = { own: own.privateKey, stranger: stranger.privateKey }
  keys.push({ ...(await exportJWK(own.publicKey)), kid: alg, alg, use: 'sig' })
}

const server = createServer((request, response) => {
  const documents = { '/.well-known/openid-configuration': { issuer: url, jwks_uri: `${url}/keys` }, '/keys': { keys } }
  response.setHeader('content-type', 'application/json')
  response.statusCode = request.url in documents ? 200 : 404
  response.end(JSON.stringify(documents[request.url] ?? {}))
})
await new Promise((ready) => server.listen(0, '127.0.0.1', ready))
const url = `http://127.0.0.1:${server.address().port}`

console.log(JSON.stringify({ url, library: 'jose' }))
for await (const line of createInterface({ input: process.stdin })) {
  const { alg, claims, header = {}, kid = alg, stranger = false } = JSON.parse(line)
  // The library refuses to sign what it does not understand, unless it is told that it does.
  const crit = Object.fromEntries((header.crit ?? []).map((name) => [name, true]))
  const token = await new SignJWT(claims)
    .setProtectedHeader({ alg, kid, ...header })
    .sign(stranger ? pairs[alg].stranger : pairs[alg].own, { crit })
  console.log(JSON.stringify({ token }))
}
process.exit(0)
