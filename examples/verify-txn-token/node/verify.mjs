// How a Node service checks a Txn-Token with jose. It trusts nothing but the edge's published keys.
// `node verify.mjs JWKS_URL TRUST_DOMAIN < TOKEN` prints the claims.
import { createLocalJWKSet, jwtVerify } from "jose";
import { readFileSync } from "node:fs";

export async function verify(token, jwks, trustDomain) {
  const { payload, protectedHeader } = await jwtVerify(token, createLocalJWKSet(jwks), {
    typ: "txntoken+jwt", algorithms: ["ES256"], audience: trustDomain, clockTolerance: 5,
    requiredClaims: ["exp", "iss", "sub"],
  });
  const key = jwks.keys.find(({ kid }) => kid === protectedHeader.kid);
  if (!key || key.cs_iss !== payload.iss) throw new Error("this key does not belong to that minter");
  return payload;
}

const [url, trustDomain] = process.argv.slice(2);
const jwks = await (await fetch(url)).json();
console.log(JSON.stringify(await verify(readFileSync(0, "utf8").trim(), jwks, trustDomain)));
