// SPDX-License-Identifier: MIT
// Requests to the member that served this page. The token is stored in sessionStorage, so it disappears with the tab.

const TOKEN = "xdp-gossip-token";
const SECONDS = 20;

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
  clear: () => sessionStorage.removeItem(TOKEN),
};

function address(path, query) {
  const url = new URL(`../v1/${path}`, location.href.split(/[?#]/)[0]);
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
  return url;
}

function headers(more) {
  const given = token.get();
  return { ...(given ? { Authorization: `Bearer ${given}` } : {}), ...more };
}

async function failure(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, String(error.code), String(error.message));
  } catch {
    return new ApiError(response.status, "http_error", `the member answered with status ${response.status}`);
  }
}

// Sends a request and returns the open response, whose body the caller reads. Throws ApiError, or fetch's error if
// there is no answer.
export async function open(path, { query, signal, accept }) {
  const options = { headers: headers({ Accept: accept }), cache: "no-store", redirect: "error", signal };
  const response = await fetch(address(path, query), options);
  if (!response.ok) throw await failure(response);
  return response;
}

// Fetches the JSON at a path within `seconds`. `cache: "no-cache"` makes the browser revalidate its cached copy with
// the entity tag.
export async function get(path, { query, signal, cache = "no-store", seconds = SECONDS } = {}) {
  const control = new AbortController();
  const abort = () => control.abort();
  const timer = setTimeout(abort, seconds * 1000);
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) abort();
  try {
    const options = { headers: headers(), cache, redirect: "error", signal: control.signal };
    const response = await fetch(address(path, query), options);
    if (!response.ok) throw await failure(response);
    return await response.json();
  } catch (error) {
    if (error instanceof ApiError || signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", control.signal.aborted ? `no answer within ${seconds} s` : "no answer");
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

// Encodes a key for a path: slashes stay, all other characters are percent-encoded.
export function keyPath(key) {
  return key.split("/").map(encodeURIComponent).join("/");
}
