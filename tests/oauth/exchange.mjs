// A token exchange (RFC 8693) by npm `oauth4webapi`: a line of JSON in, a line of JSON out, until stdin ends.
import { createInterface } from 'node:readline'
import * as oauth from 'oauth4webapi'

const exchange = async ({ url, parameters }) => {
  const server = { issuer: new URL(url).origin, token_endpoint: url }
  const client = { client_id: 'a-job' }
  const response = await oauth.genericTokenEndpointRequest(
    server,
    client,
    oauth.None(),
    'urn:ietf:params:oauth:grant-type:token-exchange',
    parameters,
    { [oauth.allowInsecureRequests]: true },
  )
  // What is issued is no access token, and the library wants to be told that somebody knows what to do with it.
  const recognizedTokenTypes = { n_a: () => {} }
  return await oauth.processGenericTokenEndpointResponse(server, client, response, { recognizedTokenTypes })
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    answer = { token: await exchange(JSON.parse(line)) }
  } catch (fault) {
    if (!(fault instanceof oauth.ResponseBodyError)) throw fault
    answer = { error: fault.error, description: fault.error_description, status: fault.status, code: fault.cause.code }
  }
  console.log(JSON.stringify(answer))
}
