#!/bin/sh
# The browser tests drive the system's Chromium. Install it where that is possible; otherwise say that they will be skipped.
[ -x /usr/bin/chromium ] && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "setup: installing Chromium for the browser tests"
    if apt-get update -qq </dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        chromium fonts-dejavu-core </dev/null >/dev/null && [ -x /usr/bin/chromium ]; then
        exit 0
    fi
    echo "setup: Chromium could not be installed" >&2
fi
echo "setup: NO CHROMIUM AT /usr/bin/chromium: THE BROWSER TESTS WILL BE SKIPPED (Debian: apt-get install chromium)" >&2
exit 0
