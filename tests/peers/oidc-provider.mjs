// A real, certified OpenID provider (npm `oidc-provider`) on loopback, for tests. `node oidc-provider.mjs PORT` (0 = any free
// port) prints `ready ISSUER`. Clients `support`, `finance` and `nobody` (secret: `secret`) get ES256 access tokens (RFC 9068)
// by client_credentials; clients `ES256`, `RS256` and `PS256` prove who they are by a key that signs so (`private_key_jwt`); `resource` becomes `aud` (opaque tokens for `urn:opaque`); each token carries the groups below.
// One command per line of standard input, one line of answer:
//   rotate        a new key signs, the old one stays published
//   rotate-drop   a new key signs, the old one is gone
//   kid           the kid that signs now
//   dpop CLIENT   a token bound to a fresh key, got with a proof: {"token": …, "type": "DPoP"}; the key is kept for `proof`
//   proof METHOD URL [NONCE]   a proof for that request and the last bound token, made by `jose`
//   client-key CLIENT   the private key of a client that has one, as a JSON string of PEM
//   stats         {"jwks": …, "discovery": …, "token": …} requests answered so far
//   quit          ends the process; so does the end of standard input
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { exportJWK, exportPKCS8, generateKeyPair, SignJWT } from "jose";
import Provider from "oidc-provider";

const GROUPS = { support: ["support"], finance: ["finance"], nobody: [] };
const OPAQUE = "urn:opaque"; // tokens for this resource only the provider can read
const KINDS = { "/jwks": "jwks", "/.well-known/openid-configuration": "discovery", "/token": "token", "/token/introspection": "introspection" };
console.info = console.error; // the provider gives advice there; standard output is for answers
const counts = { jwks: 0, discovery: 0, token: 0, introspection: 0 };
const clientKeys = {}; // by the name of the algorithm, which is the client's name, too
for (const alg of ["ES256", "RS256", "PS256"]) clientKeys[alg] = await generateKeyPair(alg, { extractable: true });
let keys = [];
let handle;
let issuer;

async function rotate(kept) {
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const kid = `key-${crypto.randomUUID()}`;
  keys = [{ ...(await exportJWK(privateKey)), kid, alg: "ES256", use: "sig" }, ...kept];
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      ...Object.keys(GROUPS).map((client_id) => ({ client_id, client_secret: "secret" })),
      ...await Promise.all(Object.entries(clientKeys).map(async ([alg, { publicKey }]) => ({
        client_id: alg, token_endpoint_auth_method: "private_key_jwt", token_endpoint_auth_signing_alg: alg,
        jwks: { keys: [await exportJWK(publicKey)] },
      }))),
    ].map((client) => ({
      ...client, grant_types: ["client_credentials"], redirect_uris: [], response_types: [], id_token_signed_response_alg: "ES256",
    })),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "urn:orders",
        getResourceServerInfo: (_ctx, audience) => ({
          scope: "orders.read", audience, accessTokenTTL: 300,
          ...(audience === OPAQUE ? { accessTokenFormat: "opaque" } : { accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } }),
        }),
      },
    },
    ttl: { ClientCredentials: 300 },
    extraTokenClaims: (ctx) => ({ groups: GROUPS[ctx.oidc.client.clientId] }),
  });
  handle = provider.callback();
  return kid;
}

// One client of its own kind: the key of its last bound token, and that token.
let bound;

async function proof(method, url, { token, nonce } = {}) {
  const ath = token && Buffer.from(await crypto.subtle.digest("SHA-256", Buffer.from(token))).toString("base64url");
  return new SignJWT({ htm: method, htu: url, jti: crypto.randomUUID(), ...(ath && { ath }), ...(nonce && { nonce }) })
    .setProtectedHeader({ typ: "dpop+jwt", alg: "ES256", jwk: bound.jwk })
    .setIssuedAt()
    .sign(bound.privateKey);
}

async function boundToken(client) {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  bound = { privateKey, jwk: await exportJWK(publicKey) };
  const answer = await fetch(`${issuer}/token`, {
    method: "POST",
    headers: { DPoP: await proof("POST", `${issuer}/token`) },
    body: new URLSearchParams({
      grant_type: "client_credentials", client_id: client, client_secret: "secret", resource: "urn:acme", scope: "orders.read",
    }),
  });
  const { access_token, token_type, ...rest } = await answer.json();
  bound.token = access_token;
  return JSON.stringify(access_token ? { token: access_token, type: token_type } : rest);
}

const server = createServer((request, response) => {
  const kind = KINDS[request.url.split("?")[0]];
  if (kind) counts[kind] += 1;
  handle(request, response);
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", async () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  await rotate([]);
  console.log(`ready ${issuer}`);
  for await (const command of createInterface({ input: process.stdin })) {
    if (command === "rotate") console.log(await rotate(keys));
    else if (command === "rotate-drop") console.log(await rotate([]));
    else if (command === "kid") console.log(keys[0].kid);
    else if (command.startsWith("dpop ")) console.log(await boundToken(command.split(" ")[1]));
    else if (command.startsWith("proof ")) {
      const [, method, url, nonce] = command.split(" ");
      console.log(await proof(method, url, { token: bound.token, nonce }));
    } else if (command.startsWith("client-key ")) {
      console.log(JSON.stringify(await exportPKCS8(clientKeys[command.split(" ")[1]].privateKey)));
    } else if (command === "stats") console.log(JSON.stringify(counts));
    else if (command === "quit") break;
    else console.log(`unknown command ${command}`);
  }
  process.exit(0);
});
