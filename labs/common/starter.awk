# Prints a source as a student gets it: awk -f labs/common/starter.awk FILE. See README.md beside this file.
/^ *\/\/@ solution / { hidden = 1; next }
/^ *\/\/@ starter$/ { hidden = 0; starter = 1; next }
/^ *\/\/@ end$/ { starter = 0; next }
hidden { next }
starter { sub(/\/\/\| /, "") }
{ print }
