// relay.mjs SCHEMA: checks a schema file against the Relay rules of @graphql-eslint; prints what they find as JSON.
// The rules stand as they are published, but for what is argued here.
import path from "node:path";
import graphql from "@graphql-eslint/eslint-plugin";
import { ESLint } from "eslint";

const schema = path.resolve(process.argv[2]);
const rules = {
  // The members of an audience are read forwards only, from the index: the rule lets each list choose.
  "@graphql-eslint/relay-arguments": ["error", { includeBoth: false }],
  "@graphql-eslint/relay-connection-types": "error",
  // Nodes have no global id: a segment is named by `name`, a customer's view of it only exists inside that customer, and
  // the `id` of the interface Node would have to be made up for both.
  "@graphql-eslint/relay-edge-types": ["error", { withEdgeSuffix: true, shouldImplementNode: false }],
  "@graphql-eslint/relay-page-info": "error",
};
const eslint = new ESLint({
  cwd: path.dirname(schema),
  overrideConfigFile: true,
  overrideConfig: [
    {
      files: ["**/*.graphql"],
      languageOptions: { parser: graphql.parser, parserOptions: { graphQLConfig: { schema } } },
      plugins: { "@graphql-eslint": graphql },
      rules,
    },
  ],
});
const [result] = await eslint.lintFiles([schema]);
console.log(JSON.stringify(result.messages.map(({ line, ruleId, message }) => ({ line, ruleId, message }))));
