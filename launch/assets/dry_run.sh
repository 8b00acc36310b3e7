# {{slice}}, {{tier}}, runtime {{runtime_version}}
# hosts run: {{command}}

# Code: one commit, and the script that every host runs at boot.
{{archive}}
{{send_archive}}
cat > startup.sh <<'AIT_JAX_STARTUP'
{{script}}AIT_JAX_STARTUP
{{send_script}}
{{forget}} || true

# {{starting}}
{{start}}

# Watch, until every host is done or one has given up.
{{watch}}
# Logs of all hosts:
# {{logs}}
