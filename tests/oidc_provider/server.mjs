// An OpenID provider that is not ours (npm oidc-provider) as one more CI system: it serves discovery and keys over
// TLS with a private CA, and mints ID tokens with CI-shaped claims through the whole authorization code flow with PKCE.
//
// Arguments: the files of its TLS certificate and key. It prints one line of JSON with its URL, then answers each line
// on stdin, {"client": AUDIENCE, "account": NAME}, with a line {"id_token": …, "access_token": …}. The line may hold
// "ago", in seconds: by that the provider's clock is set back, or forth, while it mints. It ends with stdin.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { createInterface } from 'node:readline'
import { Provider } from 'oidc-provider'

const [certificate, key] = process.argv.slice(2).map((file) => readFileSync(file))
const REDIRECT = 'https://ci.test/callback'
const API = 'https://hallpass.test'

// Claims as CI systems shape them: names, ids as numbers, booleans. `sub` is the account.
const job = {
  project_id: 70155112, project_path: 'acme/payments', ref: 'refs/heads/main', ref_protected: true, pipeline_id: 9912,
  trigger: 'push', email: 'alice@ci.test',
}
const accounts = {
  'project:70155112:ref:main': job,
  'project:70155112:ref:dev': { ...job, ref: 'refs/heads/dev', ref_protected: false },
}

// One token is minted at a time.
let setBack = 0
const now = Date.now
Date.now = () => now() - setBack * 1000

const client = (id) => ({
  client_id: id, redirect_uris: [REDIRECT], response_types: ['code'], grant_types: ['authorization_code'],
  token_endpoint_auth_method: 'none',
})
const signing = (kid, pair) => ({ ...pair.privateKey.export({ format: 'jwk' }), kid, use: 'sig' })

const server = createServer({ cert: certificate, key })
await new Promise((ready) => server.listen(0, '127.0.0.1', ready))
const url = `https://127.0.0.1:${server.address().port}`

const provider = new Provider(url, {
  clients: [client(API), client('https://another-service.test')],
  pkce: { required: () => true },
  conformIdTokenClaims: false,
  claims: { openid: ['sub', ...Object.keys(job)] },
  findAccount: (_, id) => accounts[id] && { accountId: id, claims: () => ({ sub: id, ...accounts[id] }) },
  features: {
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => API,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: 'openid', audience: API, accessTokenFormat: 'jwt' }),
    },
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  jwks: {
    keys: [
      signing('rsa-1', generateKeyPairSync('rsa', { modulusLength: 2048 })),
      signing('ec-1', generateKeyPairSync('ec', { namedCurve: 'P-256' })),
    ],
  },
  ttl: { IdToken: 300, AccessToken: 300 },
})

// Logs in whom the request hints at, and consents to what it asks for.
async function interact(request, response) {
  const details = await provider.interactionDetails(request, response)
  const accountId = details.params.login_hint
  const grant = new provider.Grant({ accountId, clientId: details.params.client_id })
  grant.addOIDCScope('openid')
  grant.addResourceScope(API, 'openid')
  const consent = { grantId: await grant.save() }
  await provider.interactionFinished(request, response, { login: { accountId }, consent })
}

const routes = provider.callback()
server.on('request', (request, response) => {
  if (!request.url.startsWith('/interaction/')) return routes(request, response)
  interact(request, response).catch((fault) => { response.statusCode = 500; response.end(String(fault)) })
})

// The authorization code flow as a relying party goes through it, over HTTPS and with the private CA.
async function mint({ client, account, ago = 0 }) {
  setBack = ago
  const verifier = randomBytes(32).toString('base64url')
  const challenge = createHash('sha256').update(verifier).digest('base64url')
  const query = new URLSearchParams({
    client_id: client, redirect_uri: REDIRECT, response_type: 'code', scope: 'openid', login_hint: account,
    nonce: randomBytes(8).toString('hex'), code_challenge: challenge, code_challenge_method: 'S256',
  })
  const cookies = new Map()
  let at = `${url}/auth?${query}`
  while (!at.startsWith(REDIRECT)) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')
    const answer = await fetch(at, { redirect: 'manual', headers: { cookie } })
    for (const each of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(each)
      cookies.set(name, value)
    }
    if (!answer.headers.has('location')) throw new Error(`${answer.status}: ${await answer.text()}`)
    at = new URL(answer.headers.get('location'), url).href
  }
  const code = new URL(at).searchParams.get('code')
  if (!code) throw new Error(at)
  const body = new URLSearchParams({
    grant_type: 'authorization_code', client_id: client, redirect_uri: REDIRECT, code, code_verifier: verifier,
  })
  const { id_token, access_token, ...fault } = await (await fetch(`${url}/token`, { method: 'POST', body })).json()
  if (!id_token) throw new Error(JSON.stringify(fault))
  return { id_token, access_token }
}

console.log(JSON.stringify({ url }))
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await mint(JSON.parse(line)).catch((fault) => ({ fault: String(fault) }))))
}
process.exit(0)
