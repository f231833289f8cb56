"""Print the packages in a site-packages folder as JSON: [{"name": …, "version": …}, …]."""

import importlib.metadata
import json
import re
import sys

found = importlib.metadata.distributions(path=[sys.argv[1]])
packages = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in found}
print(json.dumps([{"name": name, "version": packages[name]} for name in sorted(packages)], indent=1))
